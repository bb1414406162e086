//! Room for what a call makes. The one rule: nothing is asked for that the machine has not, since the system promises it all the
//! same and ends the process when it is written.

use crate::{Error, Result};

/// Sizes from which on the machine is asked.
const LARGE: usize = 1 << 30;

/// An error where so many bytes are not free.
pub fn room(bytes: usize) -> Result<()> {
    if bytes >= LARGE && free().is_some_and(|free| bytes > free) { Err(Error::Memory(bytes)) } else { Ok(()) }
}

/// A huge page.
const PAGE: usize = 2 << 20;

/// Asks for 2 MiB pages under large fresh memory: page faults of 4 KiB cost four copies of it.
pub fn huge(data: *mut u8, bytes: usize) {
    let start = (data as usize).next_multiple_of(PAGE);
    let end = (data as usize + bytes) / PAGE * PAGE;
    #[cfg(target_os = "linux")]
    if end > start {
        const MADV_HUGEPAGE: i32 = 14;
        unsafe extern "C" {
            fn madvise(at: *mut std::ffi::c_void, bytes: usize, advice: i32) -> i32;
        }
        // SAFETY: advice about pages that lie wholly inside one live allocation; it changes no content.
        unsafe { madvise(start as *mut _, end - start, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, end);
}

/// A vector of `n` copies of `value`, or [`Error::Memory`]: nothing here aborts on a large size.
pub fn try_vec<T: Clone>(n: usize, value: T) -> Result<Vec<T>> {
    let bytes = n.saturating_mul(size_of::<T>());
    room(bytes)?;
    let mut v: Vec<T> = Vec::new();
    v.try_reserve_exact(n).map_err(|_| Error::Memory(bytes))?;
    huge(v.as_mut_ptr().cast(), bytes);
    v.resize(n, value);
    Ok(v)
}

/// What Linux says it could give, swap included, and no more than the group of processes may have.
fn free() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |key: &str| -> Option<usize> {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    let machine = (of("MemAvailable")? + of("SwapFree").unwrap_or(0)) << 10;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    Some(machine.min(group.and_then(|most| most.trim().parse().ok()).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(room(1 << 20).is_ok());
        assert!(try_vec(usize::MAX / 8, 0u64).is_err());
        if free().is_some() {
            assert_eq!(room(1 << 60), Err(Error::Memory(1 << 60)));
        }
    }
}
