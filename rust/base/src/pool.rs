//! Threads. The one rule: work is cut into blocks whose bounds never depend on the number of threads, so the bits of a
//! result do not either.
//!
//! The pool is rayon's, kept behind an atomic pointer and never dropped: a forked child forgets the parent's pool
//! (its workers do not exist there) and builds its own at first use. No thread starts before the first large call.

use crate::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Elements of work under which a call stays on its own thread: entering the pool costs about 5 µs.
pub const SERIAL: usize = 32 * 1024;

static POOL: AtomicPtr<(usize, ThreadPool)> = AtomicPtr::new(null_mut());
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// A loop over `0..blocks` on somebody else's threads (torch's, say).
pub type Runner = fn(blocks: usize, body: &(dyn Fn(usize) + Sync));

/// How a call is carried out: who runs the blocks, on how many threads (0: [`threads`]), and what stops them.
#[derive(Clone, Copy)]
pub struct Context {
    pub runner: Option<Runner>,
    pub threads: usize,
    /// Asked by the calling thread between blocks, every [`POLL`]: true cancels the call.
    pub poll: Option<fn() -> bool>,
}

const PLAIN: Context = Context { runner: None, threads: 0, poll: None };

/// How long a call computes before it looks for an interrupt again.
const POLL: Duration = Duration::from_millis(25);

thread_local! {
    static CONTEXT: Cell<Context> = const { Cell::new(PLAIN) };
    static POLLED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether the calling thread's context asks to stop. Only the caller has a context with a poll; workers have none.
fn interrupted() -> bool {
    let Some(poll) = CONTEXT.get().poll else {
        return false;
    };
    let now = Instant::now();
    match POLLED.get() {
        None => {
            POLLED.set(Some(now));
            false
        }
        Some(last) if now - last < POLL => false,
        Some(_) => {
            POLLED.set(Some(now));
            poll()
        }
    }
}

/// Runs `f` with `context` in force for every [`run`] that this thread starts inside.
pub fn with<T>(context: Context, f: impl FnOnce() -> T) -> T {
    struct Restore(Context, Option<Instant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.set(self.0);
            POLLED.set(self.1);
        }
    }
    let _restore = Restore(CONTEXT.replace(context), POLLED.get());
    f()
}

/// The number of threads a large call uses: what [`set_threads`] said, else `TERSOR_NUM_THREADS`,
/// `RAYON_NUM_THREADS`, `OMP_NUM_THREADS`, else the cores this process may use.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = ["TERSOR_NUM_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"]
                .iter()
                .find_map(|k| std::env::var(k).ok()?.trim().parse().ok().filter(|&n: &usize| n > 0))
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Sets the number of threads; 0 asks the environment again.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

/// Forgets the pool after a fork. The old one is leaked on purpose: its threads did not come along.
pub fn after_fork() {
    POOL.store(null_mut(), Ordering::Release);
}

fn pool(threads: usize) -> Option<&'static ThreadPool> {
    let current = POOL.load(Ordering::Acquire);
    // SAFETY: a pool that was published is never dropped.
    if let Some((n, pool)) = unsafe { current.as_ref() }
        && *n >= threads
    {
        return Some(pool);
    }
    let built = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("tersor-{i}")).build().ok()?;
    let fresh = Box::into_raw(Box::new((threads, built)));
    match POOL.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: just published, never dropped. A smaller pool it replaces is leaked: somebody may be inside it.
        Ok(_) => Some(unsafe { &(*fresh).1 }),
        Err(_) => {
            // SAFETY: nobody else has seen `fresh`.
            drop(unsafe { Box::from_raw(fresh) });
            pool(threads)
        }
    }
}

/// Runs `body(block)` for every block in `0..blocks`, on as many threads as the context allows when `work` (in
/// elements) is worth it. Blocks run in any order; each runs once, unless the call is cancelled.
#[inline]
pub fn run(blocks: usize, work: usize, body: impl Fn(usize) + Sync) -> Result<()> {
    each(blocks, work, &body)
}

/// [`run`], compiled once for all bodies: a block is thousands of elements, a call through a pointer is nothing beside it,
/// and the queue, the threads and the panics written out for each of a thousand bodies were a tenth of the machine code.
fn each(blocks: usize, work: usize, body: &(dyn Fn(usize) + Sync)) -> Result<()> {
    let context = CONTEXT.get();
    let limit = if context.threads == 0 { threads() } else { context.threads };
    let n = if work < SERIAL { 1 } else { limit.min(blocks) };
    if n <= 1 {
        let _fp = DefaultFloats::set();
        for b in 0..blocks {
            if interrupted() {
                return Err(Error::Cancelled);
            }
            body(b);
        }
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let panic = Mutex::new(None);
    let worker = || {
        let _fp = DefaultFloats::set();
        loop {
            let b = next.fetch_add(1, Ordering::Relaxed);
            if b >= blocks {
                break;
            }
            if interrupted() {
                stop.store(true, Ordering::Relaxed);
                next.store(blocks, Ordering::Relaxed);
                break;
            }
            if let Err(p) = catch_unwind(AssertUnwindSafe(|| body(b))) {
                next.store(blocks, Ordering::Relaxed);
                if let Ok(mut slot) = panic.lock() {
                    slot.get_or_insert(p);
                }
                break;
            }
        }
    };
    match context.runner {
        Some(runner) => runner(n, &|_| worker()),
        None => match pool(n) {
            Some(pool) => pool.in_place_scope(|s| {
                for _ in 1..n {
                    s.spawn(|_| worker());
                }
                worker();
            }),
            // no thread to be had (a limit of the system): the caller does all of it
            None => worker(),
        },
    }
    if let Some(p) = panic.into_inner().unwrap_or(None) {
        resume_unwind(p);
    }
    if stop.into_inner() { Err(Error::Cancelled) } else { Ok(()) }
}

/// As [`run`], each block returning a value; the values come back in the order of the blocks.
pub fn map<T: Send>(blocks: usize, work: usize, body: impl Fn(usize) -> T + Sync) -> Result<Vec<T>> {
    let mut slots: Vec<Option<T>> = Vec::new();
    slots.try_reserve_exact(blocks).map_err(|_| Error::Memory(blocks.saturating_mul(size_of::<T>())))?;
    slots.resize_with(blocks, || None);
    let shared = Shared(slots.as_mut_ptr());
    run(blocks, work, |b| {
        // SAFETY: each block writes its own slot, once, and `slots` outlives the run.
        unsafe { *shared.at(b) = Some(body(b)) }
    })?;
    Ok(slots.into_iter().flatten().collect())
}

/// A pointer that blocks may share because each touches its own part.
#[derive(Clone, Copy)]
pub struct Shared<T>(pub *mut T);
// SAFETY: whoever dereferences it argues that the parts are disjoint.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}
impl<T> Shared<T> {
    /// # Safety
    /// `i` is within the allocation, and no other thread touches that element.
    pub unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: promised by the caller.
        unsafe { self.0.add(i) }
    }
    /// # Safety
    /// `start..start + len` is within the allocation, and no other thread touches those elements.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// Denormals are numbers here, whatever another library did to this thread's floating-point state (F26).
struct DefaultFloats {
    #[cfg(target_arch = "x86_64")]
    saved: u32,
}

impl DefaultFloats {
    #[cfg(target_arch = "x86_64")]
    fn set() -> Self {
        static DEFAULT: u32 = 0x1f80;
        let mut saved: u32 = 0;
        // SAFETY: stores and loads the SSE control word, which every x86-64 has; restored on drop.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut saved, options(nostack, preserves_flags));
            std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const DEFAULT, options(nostack, preserves_flags, readonly));
        }
        DefaultFloats { saved }
    }
    #[cfg(not(target_arch = "x86_64"))]
    fn set() -> Self {
        DefaultFloats {}
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for DefaultFloats {
    fn drop(&mut self) {
        // the sticky exception flags (low six bits) are of no account; the modes are given back
        // SAFETY: as in `set`.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const self.saved, options(nostack, preserves_flags, readonly));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_once_for_any_thread_count() {
        for t in [1, 2, 3, 8] {
            let hits: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            with(Context { runner: None, threads: t, poll: None }, || {
                run(1000, usize::MAX, |b| {
                    hits[b].fetch_add(1, Ordering::Relaxed);
                })
            })
            .unwrap();
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_panic_arrives_and_the_pool_lives_on() {
        let r = catch_unwind(|| run(100, usize::MAX, |b| assert!(b != 50)));
        assert!(r.is_err());
        assert_eq!(map(100, usize::MAX, |b| b).unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_poll_cancels_and_the_next_call_runs() {
        let slow = |_| std::thread::sleep(Duration::from_millis(10));
        for work in [0, usize::MAX] {
            let context = Context { poll: Some(|| true), threads: 2, ..PLAIN };
            assert_eq!(with(context, || run(1000, work, slow)), Err(Error::Cancelled));
            assert_eq!(run(3, work, slow), Ok(()));
        }
    }
}
