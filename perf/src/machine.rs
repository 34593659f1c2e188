//! Where it was measured.

use std::fmt;
use std::fs;
use std::thread::available_parallelism;

use serde_json::{Value, json};

/// The machine, as far as it matters for comparing figures.
pub struct Machine {
    cpu: String,
    flags: Vec<String>,
    cores: usize,
    kernel: String,
    load: String,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg");
        Machine {
            cpu: cpu_model(&read("/proc/cpuinfo")),
            flags: cpu_flags(&read("/proc/cpuinfo")),
            cores: available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load.split_whitespace().next().unwrap_or("?").to_owned(),
        }
    }

    /// Whether the processor has vector instructions of this name.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cpu_flags": self.flags,
            "cores": self.cores,
            "kernel": self.kernel,
            "load_average": self.load.parse::<f64>().ok(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, kernel, load, .. } = self;
        write!(formatter, "{cpu}, {cores} cores, Linux {kernel}, load {load} at the start")
    }
}

/// Of the first CPU's flags those that decide which vector code runs.
fn cpu_flags(cpuinfo: &str) -> Vec<String> {
    let flags = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let flags = flags.filter(|(key, _)| key.trim() == "flags").map(|(_, value)| value).next();
    let matters = |flag: &&str| *flag == "avx2" || flag.starts_with("avx512");
    let words = flags.unwrap_or_default().split_whitespace();
    words.filter(matters).map(str::to_owned).collect()
}

/// The model of the first CPU in `/proc/cpuinfo`; not every architecture names it.
fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    model
        .filter(|(key, _)| key.trim() == "model name")
        .map(|(_, value)| value.trim().to_owned())
        .next()
        .unwrap_or_else(|| format!("{} CPU", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_or_the_architecture_stands_in() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9R14\nflags\t: fpu\n";
        assert_eq!(cpu_model(text), "AMD EPYC 9R14");
        assert_eq!(cpu_flags("flags\t: fpu avx avx2 avx512f\n"), ["avx2", "avx512f"]);
        assert!(cpu_flags(text).is_empty());
        assert_eq!(cpu_model("processor : 0\n"), format!("{} CPU", std::env::consts::ARCH));
    }
}
