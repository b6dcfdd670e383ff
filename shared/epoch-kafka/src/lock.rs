//! Locking without poisoning.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the mutex even after a panic in another thread: every change under these locks leaves a consistent state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
