//! The machine on which a run was measured, as its JSON record.

use std::fs;

use serde_json::{Value, json};

/// This machine, now: CPU model, vector instruction sets, cores, kernel and load average.
pub fn here() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpuinfo, load) = (read("/proc/cpuinfo"), read("/proc/loadavg"));
    json!({
        "cpu": cpu_model(&cpuinfo),
        "cpu_flags": cpu_flags(&cpuinfo),
        // Not available_parallelism: the generator confines itself to one core.
        "cores": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average": load.split_whitespace().next().and_then(|load| load.parse::<f64>().ok()),
    })
}

/// Whether this CPU has the vector instructions that `/proc/cpuinfo` calls `flag`.
pub fn has(flag: &str) -> bool {
    cpu_flags(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()).contains(&flag)
}

/// A machine's record in a line, without the load.
pub fn describe(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or("?");
    let flags = machine["cpu_flags"].as_array().into_iter().flatten();
    let flags: Vec<_> = flags.filter_map(Value::as_str).collect();
    let flags = if flags.is_empty() { String::new() } else { format!(" ({})", flags.join(", ")) };
    format!("{}{flags}, {} cores, Linux {}", text("cpu"), machine["cores"], text("kernel"))
}

/// The value of the first CPU's line `name`.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The flags of the first CPU that decide which vector code runs.
fn cpu_flags(cpuinfo: &str) -> Vec<&str> {
    let flags = field(cpuinfo, "flags").unwrap_or_default().split_whitespace();
    flags.filter(|flag| *flag == "avx2" || flag.starts_with("avx512")).collect()
}

/// The model of the first CPU; not every architecture names it.
fn cpu_model(cpuinfo: &str) -> String {
    let unnamed = || format!("{} CPU", std::env::consts::ARCH);
    field(cpuinfo, "model name").map_or_else(unnamed, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unnamed_cpu_is_called_by_its_architecture() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9R14\nflags\t: fpu\n";
        assert_eq!(cpu_model(text), "AMD EPYC 9R14");
        assert_eq!(cpu_flags("flags\t: fpu avx avx2 avx512f\n"), ["avx2", "avx512f"]);
        assert!(cpu_flags(text).is_empty());
        assert_eq!(cpu_model("processor : 0\n"), format!("{} CPU", std::env::consts::ARCH));
    }
}
