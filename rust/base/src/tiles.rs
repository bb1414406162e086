//! Tiles of AMX: whether they are there to be used. The one rule: the system is asked once, since it keeps their state for a
//! process that asked.

/// Whether this process can use tiles: the processor has them, and the system lets it keep their state.
pub fn there() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return unit::there();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// Whether it also may: no level was forced. This may change at any moment, so it is for choices and not for safety.
pub fn allowed() -> bool {
    !crate::simd::forced() && there()
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::OnceLock;

    pub fn there() -> bool {
        static THERE: OnceLock<bool> = OnceLock::new();
        *THERE.get_or_init(|| present() && permitted())
    }

    /// AMX-TILE, AMX-INT8 and AMX-BF16, with the vectors that are used beside them.
    fn present() -> bool {
        let found = __cpuid_count(7, 0).edx;
        let bits = |n: u32| found >> n & 1 == 1;
        __cpuid(0).eax >= 7 && bits(22) && bits(24) && bits(25) && is_x86_feature_detected!("avx512vnni")
    }

    /// Asks Linux for the state of tiles: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
    fn permitted() -> bool {
        let mut result: i64 = 158;
        // SAFETY: a system call that takes two numbers and touches no memory.
        unsafe {
            std::arch::asm!(
                "syscall",
                inout("rax") result,
                in("rdi") 0x1023,
                in("rsi") 18,
                out("rcx") _,
                out("r11") _,
                options(nostack)
            );
        }
        result == 0
    }
}
