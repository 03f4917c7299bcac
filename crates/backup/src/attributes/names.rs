//! Names of users and groups, as the system's name services know them.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};

/// A cache in front of getpwuid_r(3) and getgrgid_r(3), which may ask a directory server. Shared between threads.
#[derive(Debug, Default)]
pub struct Names {
    users: RwLock<HashMap<u32, Arc<str>>>,
    groups: RwLock<HashMap<u32, Arc<str>>>,
}

impl Names {
    /// Knows no name yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The user's name, empty if there is none.
    pub fn user(&self, uid: u32) -> Arc<str> {
        cached(&self.users, uid, user_name)
    }

    /// The group's name, empty if there is none.
    pub fn group(&self, gid: u32) -> Arc<str> {
        cached(&self.groups, gid, group_name)
    }
}

fn cached(names: &RwLock<HashMap<u32, Arc<str>>>, id: u32, ask: impl Fn(u32) -> String) -> Arc<str> {
    // A panic elsewhere cannot leave the map half changed.
    if let Some(name) = names.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
        return Arc::clone(name);
    }
    // Asked without the lock: a slow directory server holds up only those that need the same answer.
    let name: Arc<str> = ask(id).into();
    Arc::clone(names.write().unwrap_or_else(PoisonError::into_inner).entry(id).or_insert(name))
}

fn user_name(uid: u32) -> String {
    with_buffer(|buffer| {
        let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and `buffer` has the length that is passed.
        let code =
            unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
        if code != 0 || found.is_null() {
            return Err(code);
        }
        // SAFETY: on success `found` points to `entry`, whose name is a C string inside `buffer`.
        Ok(unsafe { string((*found).pw_name) })
    })
}

fn group_name(gid: u32) -> String {
    with_buffer(|buffer| {
        let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: all pointers are valid for the call, and `buffer` has the length that is passed.
        let code =
            unsafe { libc::getgrgid_r(gid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
        if code != 0 || found.is_null() {
            return Err(code);
        }
        // SAFETY: on success `found` points to `entry`, whose name is a C string inside `buffer`.
        Ok(unsafe { string((*found).gr_name) })
    })
}

/// # Safety
/// `name` is null or a C string.
unsafe fn string(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: not null, so by the contract a C string.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// Asks with a growing buffer: a group's entry holds all of its members. An id without a name, and a name service that
/// fails, both give the empty name; the number is recorded in any case.
fn with_buffer(mut ask: impl FnMut(&mut [c_char]) -> Result<String, c_int>) -> String {
    let mut buffer = vec![0; 1024];
    loop {
        match ask(&mut buffer) {
            Ok(name) => return name,
            Err(libc::EINTR) => {}
            Err(libc::ERANGE) if buffer.len() < 16 << 20 => buffer = vec![0; buffer.len() * 4],
            Err(_) => return String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_system_and_the_unknown_are_empty() {
        let names = Names::new();
        for _ in 0..2 {
            assert_eq!((&*names.user(0), &*names.group(0)), ("root", "root"));
            assert_eq!((&*names.user(3_999_999_999), &*names.group(3_999_999_999)), ("", ""));
        }
        assert!(Arc::ptr_eq(&names.user(0), &names.user(0)));
    }

    #[test]
    fn a_long_entry_gets_a_longer_buffer() {
        let name = with_buffer(|buffer| if buffer.len() < 100_000 { Err(libc::ERANGE) } else { Ok("big".into()) });
        assert_eq!(name, "big");
        assert_eq!(with_buffer(|_| Err(libc::ERANGE)), "");
    }
}
