//! The machine on which a run was measured, as its JSON record.

use std::fs;

use procfs::prelude::*;
use procfs::{CpuInfo, LoadAverage};
use serde_json::{Value, json};

/// This machine, now: CPU model, vector instruction sets, cores, kernel and load average.
pub fn here() -> Value {
    let cpus = CpuInfo::current().expect("every Linux has /proc/cpuinfo");
    json!({
        "cpu": cpu_model(&cpus),
        "cpu_flags": cpu_flags(&cpus),
        // Not available_parallelism: the generator confines itself to one core.
        "cores": cpus.num_cores(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load_average": LoadAverage::current().ok().map(|load| load.one),
    })
}

/// Whether this CPU has the vector instructions that `/proc/cpuinfo` calls `flag`.
pub fn has(flag: &str) -> bool {
    CpuInfo::current().is_ok_and(|cpus| cpu_flags(&cpus).contains(&flag))
}

/// A machine's record in a line, without the load.
pub fn describe(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or("?");
    let flags = machine["cpu_flags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let flags = flags.collect::<Vec<_>>().join(", ");
    let flags = if flags.is_empty() { flags } else { format!(" ({flags})") };
    format!("{}{flags}, {} cores, Linux {}", text("cpu"), machine["cores"], text("kernel"))
}

/// The flags of the first CPU that decide which vector code runs.
fn cpu_flags(cpus: &CpuInfo) -> Vec<&str> {
    let flags = cpus.flags(0).into_iter().flatten();
    flags.filter(|flag| *flag == "avx2" || flag.starts_with("avx512")).collect()
}

/// The model of the first CPU; not every architecture names it.
fn cpu_model(cpus: &CpuInfo) -> String {
    let unnamed = || format!("{} CPU", std::env::consts::ARCH);
    cpus.model_name(0).map_or_else(unnamed, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unnamed_cpu_is_called_by_its_architecture() {
        let read = |text: &str| CpuInfo::from_buf_read(text.as_bytes()).expect("well-formed");
        let cpu = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9R14\nflags\t\t: fpu";
        assert_eq!(cpu_model(&read(cpu)), "AMD EPYC 9R14");
        assert!(cpu_flags(&read(cpu)).is_empty());
        assert_eq!(cpu_flags(&read(&format!("{cpu} avx avx2 avx512f\n"))), ["avx2", "avx512f"]);
        let unnamed = read("processor\t: 0\n");
        assert_eq!(cpu_model(&unnamed), format!("{} CPU", std::env::consts::ARCH));
    }
}
