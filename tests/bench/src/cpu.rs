//! CPU that processes and threads used, from /proc. On systems without it there is none.

use std::{collections::BTreeMap, fs, path::Path, process::Command, sync::OnceLock};

/// What some processes have used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of each process, all its threads together, also those that have ended: in ticks.
    ticks: BTreeMap<u32, u64>,
    /// Of each thread there is, in nanoseconds.
    threads: BTreeMap<u32, u64>,
}

/// What the whole machine has used so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    busy: u64,
}

/// Ticks in a second.
fn tick_rate() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let asked = Command::new("getconf").arg("CLK_TCK").output().ok();
        let answer = asked.and_then(|o| String::from_utf8(o.stdout).ok());
        answer.and_then(|text| text.trim().parse().ok()).unwrap_or(100.0)
    })
}

/// Ticks in user and kernel mode, fields 14 and 15 of /proc/PID/stat. The second field is a name with whatever in it.
fn ticks_of_stat(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + kernel)
}

/// Nanoseconds on a CPU, the first field of schedstat.
fn ns_of_schedstat(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

impl Usage {
    /// Of these processes. `None` if one of them cannot be asked.
    pub fn of(pids: &[u32]) -> Option<Self> {
        let mut usage = Self::default();
        for pid in pids {
            let process = Path::new("/proc").join(pid.to_string());
            let stat = fs::read_to_string(process.join("stat")).ok()?;
            usage.ticks.insert(*pid, ticks_of_stat(&stat)?);
            for thread in fs::read_dir(process.join("task")).ok()?.flatten() {
                let id = thread.file_name().to_str().and_then(|name| name.parse().ok());
                // A thread may end meanwhile, and some kernels keep no such file.
                if let (Some(id), Some(ns)) =
                    (id, ns_of_schedstat(&thread.path().join("schedstat")))
                {
                    usage.threads.insert(id, ns);
                }
            }
        }
        Some(usage)
    }

    /// Seconds used since then. To the nanosecond unless a thread has ended in between, which only whole ticks tell of.
    pub fn since(&self, before: &Self) -> f64 {
        let ticks: u64 = self
            .ticks
            .iter()
            .map(|(pid, now)| now - before.ticks.get(pid).copied().unwrap_or_default().min(*now))
            .sum();
        let coarse = ticks as f64 / tick_rate();
        let lost = before.threads.keys().any(|id| !self.threads.contains_key(id));
        let fine: u64 = self
            .threads
            .iter()
            .map(|(id, now)| now - before.threads.get(id).copied().unwrap_or_default().min(*now))
            .sum();
        let fine = fine as f64 / 1e9;
        // A thread that came and went between both readings shows in the ticks alone.
        let missing = coarse - fine > 3.0 / tick_rate();
        if lost || missing || self.threads.is_empty() { coarse } else { fine }
    }
}

impl Machine {
    /// Of all CPUs.
    pub fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let mut fields = stat.lines().next()?.split_ascii_whitespace().skip(1).map(str::parse);
        let mut next = || fields.next()?.ok();
        let (user, nice, system): (u64, u64, u64) = (next()?, next()?, next()?);
        let (_idle, _waiting): (u64, u64) = (next()?, next()?);
        let (interrupts, soft_interrupts): (u64, u64) = (next()?, next()?);
        Some(Self { busy: user + nice + system + interrupts + soft_interrupts })
    }

    /// Seconds of CPU used since then.
    pub fn since(self, before: Self) -> f64 {
        self.busy.saturating_sub(before.busy) as f64 / tick_rate()
    }
}

/// Seconds that this thread has used; of a system that does not tell, seconds of the clock.
pub fn of_this_thread() -> f64 {
    static BEGUN: OnceLock<std::time::Instant> = OnceLock::new();
    ns_of_schedstat(Path::new("/proc/thread-self/schedstat")).map_or_else(
        || BEGUN.get_or_init(std::time::Instant::now).elapsed().as_secs_f64(),
        |ns| ns as f64 / 1e9,
    )
}

/// Resident memory of these processes in bytes: now, and at most so far.
pub fn memory(pids: &[u32]) -> Option<(u64, u64)> {
    let (mut now, mut peak) = (0, 0);
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        now += kib("VmRSS:")? * 1_024;
        peak += kib("VmHWM:")? * 1_024;
    }
    Some((now, peak))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(ticks: &[(u32, u64)], threads: &[(u32, u64)]) -> Usage {
        Usage { ticks: ticks.iter().copied().collect(), threads: threads.iter().copied().collect() }
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 700 25 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks_of_stat(stat), Some(725));
        assert_eq!(ticks_of_stat("42"), None);
    }

    #[test]
    fn threads_count_to_the_nanosecond_unless_one_is_lost() {
        let rate = tick_rate();
        let before = usage(&[(1, 100)], &[(1, 5_000_000), (2, 0)]);
        let after = usage(&[(1, 102)], &[(1, 15_000_000), (2, 1_000_000), (3, 4_000_000)]);
        assert!((after.since(&before) - 0.015).abs() < 1e-9);
        let without = usage(&[(1, 102)], &[(1, 15_000_000)]);
        assert!((without.since(&before) - 2.0 / rate).abs() < 1e-9);
        let hidden = usage(&[(1, 200)], &[(1, 15_000_000), (2, 0)]);
        assert!((hidden.since(&before) - 100.0 / rate).abs() < 1e-9);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_of_this_process_is_seen() {
        let pid = [std::process::id()];
        let (before, machine, thread) =
            (Usage::of(&pid).unwrap(), Machine::now().unwrap(), of_this_thread());
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 200 {
            std::hint::black_box(begun);
        }
        assert!(Usage::of(&pid).unwrap().since(&before) > 0.02);
        assert!(Machine::now().unwrap().since(machine) > 0.02);
        assert!(of_this_thread() > thread);
        assert!(memory(&pid).is_some_and(|(now, peak)| now > 0 && peak >= now));
    }
}
