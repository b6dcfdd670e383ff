//! Interruption by SIGHUP, SIGINT and SIGTERM.
//!
//! Signals set a flag that every wait polls, so that a command leaves through its cleanup and not in the middle of it.
//! Without [`install`], as in tests that use the library, signals keep their default action.

use std::{
    fs,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use crate::Error;

static PENDING: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
static DISABLED: AtomicBool = AtomicBool::new(false);

/// Makes [`check`] report the signals from now on. Signals that the caller ignores, as `nohup` does, stay ignored.
pub(crate) fn install() -> Result<(), Error> {
    let pending = PENDING.get_or_init(Arc::default);
    let ignored = ignored_signals();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored & (1 << (signal - 1)) == 0 {
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, Arc::clone(pending), number).map_err(Error::io("handle", "signals"))?;
        }
    }
    Ok(())
}

/// Returns an error if a signal has arrived.
pub(crate) fn check() -> Result<(), Error> {
    let signal = PENDING.get().map_or(0, |pending| pending.load(Ordering::Relaxed));
    match u8::try_from(signal) {
        Ok(signal) if signal != 0 && !DISABLED.load(Ordering::Relaxed) => Err(Error::Interrupted(signal)),
        _ => Ok(()),
    }
}

/// Lets [`check`] succeed from now on, for a cleanup that must not be interrupted.
pub(crate) fn disable() {
    DISABLED.store(true, Ordering::Relaxed);
}

/// Returns the signals that this process ignores, as the bit mask of `/proc/self/status`.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
