//! The same work on many things, on all cores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// One thread for each core.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Calls `work` for each item, on up to `threads` threads of which each has a state of its own. After an error no
/// further item is begun, and the first error is returned.
pub(crate) fn for_each<T: Sync, S, E: Send>(
    threads: usize,
    items: &[T],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work_through = || -> Result<(), E> {
        if next.load(Ordering::Relaxed) >= items.len() {
            return Ok(());
        }
        let mut state = state();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = work(&mut state, item) {
                failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others = threads.min(items.len()).saturating_sub(1);
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work_through)).collect();
        let mut result = work_through();
        for thread in others {
            result = result.and(thread.join().expect("a worker does not panic"));
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let items: Vec<usize> = (0..1000).collect();
        let done: Vec<AtomicUsize> = items.iter().map(|_| AtomicUsize::new(0)).collect();
        let result = for_each(
            4,
            &items,
            || (),
            |(), &item| {
                done[item].fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(())
            },
        );
        assert_eq!(result, Ok(()));
        assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn an_error_stops_the_work_and_comes_back() {
        let items: Vec<usize> = (0..1_000_000).collect();
        let done = AtomicUsize::new(0);
        let result = for_each(
            4,
            &items,
            || (),
            |(), &item| {
                done.fetch_add(1, Ordering::Relaxed);
                if item == 10 { Err("ten") } else { Ok(()) }
            },
        );
        assert_eq!(result, Err("ten"));
        assert!(done.load(Ordering::Relaxed) < items.len());
    }
}
