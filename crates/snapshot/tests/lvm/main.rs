//! LVM thin volumes on the real thing: the kernel's device mapper and LVM's commands, in a guest.

#![expect(clippy::disallowed_methods, reason = "in the guest the environment says what to do")]
#![expect(clippy::print_stdout, reason = "the guest reports on its standard output")]

mod guest;
mod host;

use std::env;

/// On the host it starts the guest. There it is run again, and does the tests, one of which runs it a third time, as a
/// process that is to be killed.
#[test]
fn thin_volumes_in_a_guest() {
    if let Some(orders) = env::var_os(guest::VICTIM) {
        return guest::be_killed(&orders);
    }
    if env::var_os(host::IN_GUEST).is_some() {
        return guest::run_all();
    }
    let output = host::run_in_guest("thin_volumes_in_a_guest");
    let done = format!("{} done\n", guest::TESTS.len());
    assert!(output.contains(&done) && output.contains("\nRC=0"), "{output}");
    println!("{output}");
}
