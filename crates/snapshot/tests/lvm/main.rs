//! LVM thin volumes on the real thing: the kernel's device mapper and LVM's commands, in a guest.

mod guest;
mod host;

/// On the host it starts the guest. There it is run again, and does the tests, one of which runs it a third time, as a
/// process that is to be killed.
#[test]
fn thin_volumes_in_a_guest() {
    if let Some(orders) = guest::orders() {
        return guest::be_killed(&orders);
    }
    if host::is_in_guest() {
        return guest::run_all();
    }
    let output = host::run_in_guest("thin_volumes_in_a_guest");
    let done = format!("{} done\n", guest::TESTS.len());
    assert!(output.contains(&done) && output.contains("\nRC=0"), "{output}");
    // What took how long.
    host::report(&output);
}
