//! Real-time behaviour of a thread: scheduling class, locked memory, a runaway limit.

use std::{hint, io};

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit},
};

/// Gives the calling thread the scheduling class SCHED_FIFO at `priority` (1 to 99; kernel threads and watchdogs should
/// be above). Its children and new threads are ordinary again.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_NICE or a sufficient RLIMIT_RTPRIO, and in a cpu control group without real-time
/// budget; `InvalidInput` for a priority out of range.
pub fn become_fifo(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: i32::from(priority) };
    // SAFETY: the parameters are readable for the call and not kept; 0 is the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Explains why [`become_fifo`] was refused, and the cure.
#[must_use]
pub fn fifo_refusal(priority: u8, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    // The first user namespace maps all numbers to themselves.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if map.split_ascii_whitespace().ne(["0", "0", "4294967295"]) {
        return "not permitted inside of a user namespace; start it outside, as root".to_string();
    }
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_NICE));
    let limit = getrlimit(Resource::Rtprio).current.unwrap_or(u64::MAX);
    if !may && limit < u64::from(priority) {
        return format!(
            "no CAP_SYS_NICE, and RLIMIT_RTPRIO is {limit}; start it as root, or with LimitRTPRIO={priority}"
        );
    }
    "its cpu control group has no real-time budget (kernel with RT_GROUP_SCHED); \
     give it one in cpu.rt_runtime_us, or start it in the root group"
        .to_string()
}

/// Sets the calling thread's nice value: -20 first, 19 last.
///
/// # Errors
/// `PermissionDenied` without rights.
pub fn become_nice(value: i32) -> io::Result<()> {
    // On Linux "the process" is the calling thread here.
    Ok(setpriority_process(None, value)?)
}

/// Locks all memory of the process, present and future, page by page as each is first touched. Without that condition
/// every stack of every thread would be resident completely.
///
/// # Errors
/// `PermissionDenied` if RLIMIT_MEMLOCK is limited and there is no CAP_IPC_LOCK: at that limit the process would be
/// refused any further memory, ordinary memory included.
pub fn lock_memory() -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock);
    if let Some(bytes) = limit.current {
        // The hard limit may be higher, and may be used.
        let widest = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let unlimited = limit.maximum.is_none() && setrlimit(Resource::Memlock, widest).is_ok();
        if !unlimited && !locks_beyond_the_limit(limit) {
            let text = format!("RLIMIT_MEMLOCK is {} KiB and there is no CAP_IPC_LOCK", bytes / 1024);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Makes the allocator return large pieces of memory to the kernel as soon as they are freed. Otherwise it keeps more
/// of them the larger they were, and in a process with locked memory that stays resident. Memory that is free already,
/// as after reading large files, is returned now. Does nothing if the C library has no such setting.
///
/// Holds the allocator's locks for some milliseconds: call it before anything has to be punctual.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE_BYTES: libc::c_int = 128 << 10;
        const KEPT_BYTES: libc::c_int = 1 << 20;
        // SAFETY: the calls set two numbers of the allocator and free pages that hold nothing, under its own locks, and keep
        // no pointer.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
            libc::malloc_trim(0);
        }
    }
}

/// Whether the process has CAP_IPC_LOCK in the first user namespace, where it counts. Tried with one page under a limit
/// of zero, because the capability sets of another user namespace look the same.
fn locks_beyond_the_limit(limit: Rlimit) -> bool {
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    if setrlimit(Resource::Memlock, none).is_err() {
        return false;
    }
    let page = [0u8; 1];
    // SAFETY: the address is that of a live variable, and locking its page for a moment changes nothing that the
    // compiler knows of.
    let locked = unsafe { libc::mlock(page.as_ptr().cast(), 1) } == 0;
    if locked {
        // SAFETY: as above.
        unsafe { libc::munlock(page.as_ptr().cast(), 1) };
    }
    let _ = setrlimit(Resource::Memlock, limit);
    locked
}

/// The bytes of stack that [`touch_stack`] makes resident.
pub const STACK_TOUCHED_BYTES: usize = 256 * 1024;

/// Touches the calling thread's stack below the caller, so that deeper calls cause no page fault later. The thread
/// needs a stack well above [`STACK_TOUCHED_BYTES`].
#[inline(never)]
pub fn touch_stack() {
    let mut depth = [0u8; STACK_TOUCHED_BYTES];
    // Writes to each page in a way that the compiler cannot remove.
    for page in depth.chunks_mut(4096) {
        page[0] = 1;
        hint::black_box(&mut *page);
    }
    hint::black_box(&mut depth);
}

/// Sets the runaway limit: if a real-time thread computes for `micros` microseconds without waiting once, the kernel
/// ends the process (SIGXCPU), and the machine stays usable. The hard limit stays unchanged, so that children may set
/// their own.
///
/// # Errors
/// The kernel's error.
pub fn set_runaway_limit(micros: u64) -> io::Result<()> {
    let maximum = getrlimit(Resource::Rttime).maximum;
    let current = Some(maximum.map_or(micros, |maximum| micros.min(maximum)));
    Ok(setrlimit(Resource::Rttime, Rlimit { current, maximum })?)
}

/// The CPU time that the hypervisor has taken from this machine since its boot, in clock ticks (usually 100 a second):
/// the `steal` column of the kernel's statistics. `None` if there is none.
#[must_use]
pub fn stolen_ticks() -> Option<u64> {
    let statistics = std::fs::read_to_string("/proc/stat").ok()?;
    statistics.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_its_own_becomes_punctual_or_is_told_why_not() {
        std::thread::spawn(|| {
            touch_stack();
            match become_fifo(20) {
                Ok(()) => {
                    // SAFETY: 0 is the calling thread; the call has no other argument.
                    let class = unsafe { libc::sched_getscheduler(0) };
                    assert_eq!(class, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            }
            assert_eq!(become_fifo(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        })
        .join()
        .unwrap();
    }
}
