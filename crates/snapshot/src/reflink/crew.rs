//! Threads that share a stack of work which grows while it is done, one thread for each processor.
//!
//! The last work added is done first, so that the stack stays as deep as the tree, not as long as its list of files.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// More threads only wait for the file system's locks.
const MAX_THREADS: usize = 16;

struct Stack<W, E> {
    work: Vec<W>,
    busy: usize,
    is_over: bool,
    error: Option<E>,
}

/// What is still to be done.
pub(crate) struct Crew<W, E = crate::error::Error> {
    stack: Mutex<Stack<W, E>>,
    changed: Condvar,
}

impl<W: Send, E: Send> Crew<W, E> {
    /// Adds work.
    pub(crate) fn add(&self, work: W) {
        self.locked().work.push(work);
        self.changed.notify_one();
    }

    /// Whether somebody failed, so that the rest need not be done.
    pub(crate) fn is_over(&self) -> bool {
        self.locked().is_over
    }

    fn locked(&self) -> MutexGuard<'_, Stack<W, E>> {
        // A panic elsewhere cannot leave the stack half changed.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, perform: impl Fn(W, &Self) -> Result<(), E>) {
        let mut stack = self.locked();
        loop {
            if stack.is_over {
                return;
            }
            if let Some(work) = stack.work.pop() {
                stack.busy += 1;
                drop(stack);
                let busy = Busy(self);
                let done = perform(work, self);
                drop(busy);
                stack = self.locked();
                if let Err(error) = done {
                    stack.error.get_or_insert(error);
                    stack.is_over = true;
                    self.changed.notify_all();
                }
            } else if stack.busy == 0 {
                return;
            } else {
                stack = self.changed.wait(stack).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// A thread that performs work. When it is done, or panics, the others must not wait for it.
struct Busy<'a, W: Send, E: Send>(&'a Crew<W, E>);

impl<W: Send, E: Send> Drop for Busy<'_, W, E> {
    fn drop(&mut self) {
        let mut stack = self.0.locked();
        stack.busy -= 1;
        stack.is_over |= std::thread::panicking();
        if stack.is_over || (stack.busy == 0 && stack.work.is_empty()) {
            self.0.changed.notify_all();
        }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS)
}

/// Performs the first work and all that is added to it. The first error ends it.
pub(crate) fn run<W: Send, E: Send>(
    first: W,
    perform: impl Fn(W, &Crew<W, E>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let stack = Mutex::new(Stack { work: vec![first], busy: 0, is_over: false, error: None });
    let crew = Crew { stack, changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 1..threads() {
            scope.spawn(|| crew.work(&perform));
        }
        crew.work(&perform);
    });
    crew.stack.into_inner().unwrap_or_else(PoisonError::into_inner).error.map_or(Ok(()), Err)
}

/// Does the same to each of many things. The first error ends it.
pub(crate) fn each<T: Sync, E: Send>(things: &[T], act: impl Fn(&T) -> Result<(), E> + Sync) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let error = Mutex::new(None);
    let work = || {
        while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failed) = act(thing) {
                error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failed);
                next.store(things.len(), Ordering::Relaxed);
            }
        }
    };
    // Few things are done before a thread has started.
    match things.len() {
        0..64 => work(),
        _ => std::thread::scope(|scope| {
            for _ in 1..threads() {
                scope.spawn(work);
            }
            work();
        }),
    }
    error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
