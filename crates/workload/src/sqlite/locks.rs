//! Locks that stay ours, whatever else this process does with the same file.
//!
//! SQLite locks by fcntl(2), and such locks are the process's: they are gone as soon as *any* descriptor of the file is
//! closed, such as that of the thread which reads it into a backup at the same time. A writer would then change what is
//! just being dumped. Open file description locks (Linux 3.15; fcntl(2), F_OFD_SETLK) belong to one opening of the file.
//! They conflict with the locks of other processes all the same, and are gone, too, when we are killed.
//!
//! SQLite lets its system calls be replaced (`sqlite3_vfs.xSetSystemCall`). That is for the whole process, so a thread
//! says while it works on a database that is not our own. All others go on as before: SQLite counts the locks of all
//! connections of a process as one where a file is opened more than once, which does not fit a database that is
//! written to over several of them, as our own catalog is.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;

use rusqlite::ffi;

thread_local! {
    /// How many [`Locking`] this thread has.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, locks that SQLite takes in this thread belong to the opening of the file.
pub(super) struct Locking {
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl Locking {
    /// Begins. Nothing if SQLite's system calls cannot be replaced.
    pub(super) fn begin() -> Option<Locking> {
        static REPLACED: OnceLock<bool> = OnceLock::new();
        REPLACED.get_or_init(replace).then(|| {
            DEPTH.set(DEPTH.get() + 1);
            Locking { _thread: PhantomData }
        })
    }
}

impl Drop for Locking {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

fn replace() -> bool {
    // struct flock has 64-bit offsets there without further ado.
    if !cfg!(target_pointer_width = "64") {
        return false;
    }
    // SAFETY: initializing is allowed at any time, from any thread (sqlite3_initialize). A VFS stays registered for ever.
    // The pointer is called back as `int(*)(int,int,...)` with at most one more argument, an int or a pointer; on every
    // 64-bit ABI of Linux variable arguments come where fixed ones of the same types do.
    unsafe {
        if ffi::sqlite3_initialize() != ffi::SQLITE_OK {
            return false;
        }
        let vfs = ffi::sqlite3_vfs_find(c"unix".as_ptr());
        let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) else { return false };
        let ours: unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int = fcntl;
        let ours = std::mem::transmute::<
            unsafe extern "C" fn(c_int, c_int, *mut c_void) -> c_int,
            unsafe extern "C" fn(),
        >(ours);
        set(vfs, c"fcntl".as_ptr(), Some(ours)) == ffi::SQLITE_OK
    }
}

/// fcntl(2), with the other kind of locks where they are wanted.
///
/// # Safety
/// As of fcntl(2): the argument is what the command takes.
unsafe extern "C" fn fcntl(file: c_int, command: c_int, argument: *mut c_void) -> c_int {
    let command = match command {
        libc::F_SETLK if DEPTH.get() > 0 => libc::F_OFD_SETLK,
        libc::F_GETLK if DEPTH.get() > 0 => libc::F_OFD_GETLK,
        // SAFETY: what came is passed on.
        _ => return unsafe { libc::fcntl(file, command, argument) },
    };
    // SAFETY: both commands take a lock. The kernel refuses one of a process.
    unsafe {
        (*argument.cast::<libc::flock>()).l_pid = 0;
        libc::fcntl(file, command, argument)
    }
}
