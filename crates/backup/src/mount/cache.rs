//! What was used last, bounded in bytes. A thing that several threads want at once is loaded by one of them while the
//! others wait, so that nothing is decoded twice; threads that want other things do not wait.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use repository::id::Id;

/// Least recently used goes first. The one used last stays even if it alone exceeds the bound: a directory of a
/// million files is asked for once for each of them.
pub(super) struct Cache<T> {
    state: Mutex<State<T>>,
    /// Something was loaded, or could not be.
    loaded: Condvar,
    capacity_bytes: usize,
}

struct State<T> {
    kept: HashMap<Id, Kept<T>>,
    by_use: BTreeMap<u64, Id>,
    next_use: u64,
    bytes: usize,
    loading: HashSet<Id>,
}

struct Kept<T> {
    value: Arc<T>,
    bytes: usize,
    last_use: u64,
}

impl<T> Cache<T> {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        let state =
            State { kept: HashMap::new(), by_use: BTreeMap::new(), next_use: 0, bytes: 0, loading: HashSet::new() };
        Cache { state: Mutex::new(state), loaded: Condvar::new(), capacity_bytes }
    }

    /// What is kept under the id, or what `load` gives, together with the bytes it takes.
    pub(super) fn get<E>(&self, id: &Id, load: impl FnOnce() -> Result<(T, usize), E>) -> Result<Arc<T>, E> {
        let mut state = self.lock();
        loop {
            if let Some(value) = state.touch(id) {
                return Ok(value);
            }
            if state.loading.insert(*id) {
                break;
            }
            state = self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let _loading = Loading { cache: self, id };
        let (value, bytes) = load()?;
        let value = Arc::new(value);
        self.lock().keep(*id, Arc::clone(&value), bytes, self.capacity_bytes);
        Ok(value)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that can panic runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the waiting of the others also where loading fails or panics.
struct Loading<'a, T> {
    cache: &'a Cache<T>,
    id: &'a Id,
}

impl<T> Drop for Loading<'_, T> {
    fn drop(&mut self) {
        self.cache.lock().loading.remove(self.id);
        self.cache.loaded.notify_all();
    }
}

impl<T> State<T> {
    fn touch(&mut self, id: &Id) -> Option<Arc<T>> {
        let kept = self.kept.get_mut(id)?;
        self.by_use.remove(&kept.last_use);
        kept.last_use = self.next_use;
        self.by_use.insert(self.next_use, *id);
        self.next_use += 1;
        Some(Arc::clone(&kept.value))
    }

    fn keep(&mut self, id: Id, value: Arc<T>, bytes: usize, capacity_bytes: usize) {
        while self.bytes + bytes > capacity_bytes
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.bytes -= self.kept.remove(&oldest).map_or(0, |kept| kept.bytes);
        }
        self.by_use.insert(self.next_use, id);
        self.kept.insert(id, Kept { value, bytes, last_use: self.next_use });
        self.next_use += 1;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn id(number: u8) -> Id {
        Id([number; 32])
    }

    /// Whether the thing had to be loaded.
    fn loads(cache: &Cache<u8>, number: u8, bytes: usize) -> bool {
        let mut loaded = false;
        let value = cache.get(&id(number), || {
            loaded = true;
            Ok::<_, Infallible>((number, bytes))
        });
        assert_eq!(value.ok().as_deref(), Some(&number));
        loaded
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let cache = Cache::new(30);
        for number in [1, 2, 3] {
            assert!(loads(&cache, number, 10));
        }
        assert!(!loads(&cache, 1, 10));
        assert!(loads(&cache, 4, 10));
        assert!(!loads(&cache, 1, 10));
        assert!(!loads(&cache, 3, 10));
        assert!(loads(&cache, 2, 10));
        assert_eq!(cache.lock().bytes, 30);
    }

    #[test]
    fn one_thing_larger_than_the_bound_stays_until_the_next() {
        let cache = Cache::new(30);
        assert!(loads(&cache, 1, 10));
        assert!(loads(&cache, 2, 100));
        assert!(!loads(&cache, 2, 100));
        assert!(loads(&cache, 1, 10));
        assert!(loads(&cache, 2, 100));
        assert_eq!(cache.lock().kept.len(), 1);
    }

    #[test]
    fn many_threads_load_a_thing_once() {
        let cache = Cache::new(30);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.get(&id(1), || {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        count.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, Infallible>((1, 10))
                    })
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
    }

    #[test]
    fn after_a_failure_or_a_panic_the_next_one_tries() {
        let cache = Cache::new(30);
        assert_eq!(cache.get(&id(1), || Err::<(u8, usize), _>("no")).err(), Some("no"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get(&id(1), || -> Result<(u8, usize), Infallible> { panic!("on purpose") })
        }));
        assert!(panicked.is_err());
        assert!(loads(&cache, 1, 10));
    }
}
