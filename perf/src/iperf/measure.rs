//! One measurement: daemons that are connected, iperf3 between them, and what it cost.
//!
//! 1. A new star of daemons, so that no measurement inherits anything from another.
//! 2. iperf3's server in the sink's namespace.
//! 3. CPU times, iperf3's client in the source's namespace, CPU times.

use std::time::Duration;

use serde_json::{Value, json};

use super::options::{Options, Topology};
use super::report::Report;
use crate::cpu;
use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::process::STEP_LIMIT;
use crate::rounds::Measured;
use crate::star::{Member, Star};

/// How much longer than its measurement iperf3 may take to connect and to report.
const IPERF_GRACE: Duration = Duration::from_secs(20);

/// Nanoseconds are CPU's unit, gigabytes (10^9 bytes) traffic's.
const GIGA: f64 = 1e9;

/// What one measurement gave.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// iperf3's figures.
    pub report: Report,
    /// CPU time of each daemon while iperf3 ran, by its role, and whether it is of the
    /// implementation that is measured.
    daemons: Vec<DaemonTime>,
    /// CPU time of the whole machine while iperf3 ran: all daemons, both iperf3, the kernel, and
    /// whatever else ran.
    machine: Duration,
}

#[derive(Clone, Debug)]
struct DaemonTime {
    role: &'static str,
    is_measured: bool,
    time: Duration,
}

impl Measurement {
    /// Gbit/s of payload, as the receiver's program got it.
    pub fn gigabits(&self) -> f64 {
        self.report.bits_per_second / GIGA
    }

    /// TCP segments that the sender sent again.
    pub fn retransmits(&self) -> f64 {
        // At most 128 streams for an hour: far below 2^53.
        self.report.retransmits as f64
    }

    /// CPU seconds of the measured daemons per gigabyte of payload: of both in a pair, of the
    /// relay alone in the relay topology.
    pub fn daemon_seconds_per_gigabyte(&self) -> f64 {
        let measured = self.daemons.iter().filter(|daemon| daemon.is_measured);
        self.per_gigabyte(measured.map(|daemon| daemon.time).sum())
    }

    /// CPU seconds of the whole machine per gigabyte of payload.
    pub fn machine_seconds_per_gigabyte(&self) -> f64 {
        self.per_gigabyte(self.machine)
    }

    fn per_gigabyte(&self, time: Duration) -> f64 {
        time.as_secs_f64() / (self.report.bytes / GIGA)
    }
}

impl Measured for Measurement {
    fn summary(&self) -> String {
        format!("{:.2} Gbit/s", self.gigabits())
    }

    fn record(&self) -> Value {
        let daemons = self.daemons.iter().map(|daemon| {
            json!({
                "role": daemon.role,
                "measured": daemon.is_measured,
                "cpu_seconds": daemon.time.as_secs_f64(),
            })
        });
        json!({
            "iperf3": self.report.record(),
            "daemons": daemons.collect::<Vec<_>>(),
            "machine_cpu_seconds": self.machine.as_secs_f64(),
        })
    }
}

/// Measures `program`; in the relay topology as the relay between two daemons of `client`.
pub fn measure(
    program: &Program,
    client: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let mut star = match options.topology {
        Topology::Pair => Star::build(program, program, 1, interrupt)?,
        Topology::Relay => Star::build(program, client, 2, interrupt)?,
    };
    // A daemon that has ended explains why iperf3 failed better than iperf3 can.
    match run(&star, options, interrupt) {
        Err(Failure::Step(text)) => star.check().and(Err(Failure::Step(text))),
        outcome => outcome,
    }
}

fn run(star: &Star, options: &Options, interrupt: &Interrupt) -> Result<Measurement, Failure> {
    let sink = &star.sink().namespace;
    let _server = sink.spawn("iperf3 --server --one-off")?;
    interrupt.wait_until(STEP_LIMIT, "iperf3's server listens", || {
        Ok(!sink.run("ss -Hltn sport = :5201")?.trim().is_empty())
    })?;
    let line = format!(
        "iperf3 --json --interval 0 --client {} --time {} --parallel {}",
        star.sink().address(options.family),
        options.seconds,
        options.streams
    );
    let limit = Duration::from_secs(options.seconds.into()) + IPERF_GRACE;
    let before = Times::now(star)?;
    let text = star.source().namespace.run_with(&line, "", limit)?;
    let after = Times::now(star)?;
    let report = Report::parse(&text).map_err(Failure::Step)?;
    let (daemons, machine) = after.since(&before, star, options.topology);
    Ok(Measurement { report, daemons, machine })
}

/// CPU times at one moment.
struct Times {
    daemons: Vec<Duration>,
    machine: Duration,
}

impl Times {
    fn now(star: &Star) -> Result<Times, Failure> {
        let of = |member: &Member| {
            let role = member.role();
            let gone = || Failure::step(format!("the daemon of {role} has no CPU time in /proc"));
            cpu::of_process(member.pid()).ok_or_else(gone)
        };
        let daemons = star.members().map(of).collect::<Result<_, _>>()?;
        let machine =
            cpu::of_machine().ok_or_else(|| Failure::step("no CPU time in /proc/stat"))?;
        Ok(Times { daemons, machine })
    }

    fn since(
        &self,
        before: &Times,
        star: &Star,
        topology: Topology,
    ) -> (Vec<DaemonTime>, Duration) {
        let times = self.daemons.iter().zip(&before.daemons);
        let daemons = star.members().zip(times).enumerate().map(|(index, (member, times))| {
            DaemonTime {
                role: member.role(),
                // The hub comes first.
                is_measured: topology == Topology::Pair || index == 0,
                time: times.0.saturating_sub(*times.1),
            }
        });
        (daemons.collect(), self.machine.saturating_sub(before.machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_measured_costs() {
        let report = Report {
            bits_per_second: 4e9,
            bytes: 2e9,
            retransmits: 0,
            congestion: String::new(),
            cpu_percent: (0.0, 0.0),
        };
        let daemon = |role, is_measured, seconds| DaemonTime {
            role,
            is_measured,
            time: Duration::from_secs(seconds),
        };
        let daemons = vec![daemon("relay", true, 3), daemon("client", false, 5)];
        let measurement = Measurement { report, daemons, machine: Duration::from_secs(8) };
        assert_eq!(measurement.gigabits(), 4.0);
        assert_eq!(measurement.daemon_seconds_per_gigabyte(), 1.5);
        assert_eq!(measurement.machine_seconds_per_gigabyte(), 4.0);
        assert_eq!(measurement.record()["daemons"][0]["cpu_seconds"], 3.0);
    }
}
