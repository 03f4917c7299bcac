//! What a service tells its manager: sd_notify(3), datagrams to the socket that `$NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notifier {
    /// `socket` is a path, or `@` and an abstract name.
    pub fn new(socket: &OsStr) -> io::Result<Notifier> {
        let manager = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        let own = UnixDatagram::unbound()?;
        // A manager that does not read must not stop backups.
        own.set_nonblocking(true)?;
        Ok(Notifier { socket: own, manager })
    }

    /// All is up.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: impl Display) {
        self.send(&format!("STATUS={}", text.to_string().replace('\n', " ")));
    }

    /// Reading the configuration again; [`Notifier::ready`] says that it is done. systemd wants to know since when, to
    /// tell this reload from the one before.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// Still alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// On the way to the end; it may take so long from now.
    pub fn stopping(&self, may_take: std::time::Duration) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", may_take.as_micros()));
    }

    fn send(&self, text: &str) {
        // There is nobody else to tell that it failed, and the next one may get through.
        let _ = self.socket.send_to_addr(text.as_bytes(), &self.manager);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_hears_what_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let name = format!("@snapback-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        let unnamed = UnixDatagram::bind_addr(&address).unwrap();
        for (manager, socket) in [(named, path.as_os_str()), (unnamed, OsStr::new(&name))] {
            let notifier = Notifier::new(socket).unwrap();
            notifier.ready();
            notifier.status("two\nlines");
            notifier.watchdog();
            notifier.stopping(Duration::from_secs(2));
            let heard = [said(&manager), said(&manager), said(&manager), said(&manager)];
            let expected = ["READY=1", "STATUS=two lines", "WATCHDOG=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000"];
            assert_eq!(heard, expected);
            notifier.reloading();
            let heard = said(&manager);
            let usec = heard.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(|usec| usec.parse::<u64>().unwrap());
            assert!(usec.is_some_and(|usec| usec > 0), "{heard}");
            drop(manager);
            notifier.watchdog();
        }
    }
}
