//! One measurement: daemons that are connected, iperf3 between them, and what it cost.
//!
//! 1. A new star of daemons, so that no measurement inherits anything from another.
//! 2. iperf3's server in the sink's namespace.
//! 3. CPU times, iperf3's client in the source's namespace, CPU times.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::options::{Direction, Options, Topology};
use super::report::Report;
use crate::cpu::{self, Threads, record_of_threads};
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
    /// None if it is the kernel.
    time: Option<Duration>,
    threads: Vec<(String, Duration)>,
    /// What its log says of how it runs.
    told: Vec<String>,
}

impl Measurement {
    /// Gbit/s of payload, as the receiver's program got it.
    pub fn gigabits(&self) -> f64 {
        self.report.bits_per_second / GIGA
    }

    /// TCP segments that the sender sent again; not a number over UDP.
    pub fn retransmits(&self) -> f64 {
        self.report.retransmits
    }

    /// Payload that was sent and did not arrive (percent).
    pub fn lost_percent(&self) -> f64 {
        100.0 * (1.0 - self.report.bytes / self.report.bytes_sent)
    }

    /// Gbit/s of payload that the sender sent, over the receiver's time.
    pub fn gigabits_sent(&self) -> f64 {
        self.gigabits() * self.report.bytes_sent / self.report.bytes
    }

    /// CPU seconds of the measured daemons per gigabyte of payload: of both in a pair, of the
    /// relay alone in the relay topology. Not a number for the kernel, which has no process.
    pub fn daemon_seconds_per_gigabyte(&self) -> f64 {
        let mut measured = self.daemons.iter().filter(|daemon| daemon.is_measured);
        let sum = measured.try_fold(Duration::ZERO, |sum, daemon| Some(sum + daemon.time?));
        sum.map_or(f64::NAN, |time| self.per_gigabyte(time))
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
        let lost = match self.report.retransmits.is_nan() {
            true => format!(", {:.1} % lost", self.lost_percent()),
            false => String::new(),
        };
        format!("{:.2} Gbit/s{lost}", self.gigabits())
    }

    fn record(&self) -> Value {
        let daemons = self.daemons.iter().map(|daemon| {
            json!({
                "role": daemon.role,
                "measured": daemon.is_measured,
                "cpu_seconds": daemon.time.map(|time| time.as_secs_f64()),
                "threads": record_of_threads(&daemon.threads),
                "told": daemon.told,
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
    let line = client_line(options, star.sink().address(options.family));
    let limit = Duration::from_secs(options.seconds.into()) + IPERF_GRACE;
    let before = Times::now(star)?;
    let text = star.source().namespace.run_with(&line, "", limit)?;
    let after = Times::now(star)?;
    let report = Report::parse(&text, options.udp.is_some()).map_err(Failure::Step)?;
    let (daemons, machine) = after.since(&before, star, options.topology);
    Ok(Measurement { report, daemons, machine })
}

/// iperf3's client as a command line.
fn client_line(options: &Options, server: IpAddr) -> String {
    let mut line = format!(
        "iperf3 --json --interval 0 --client {server} --time {} --parallel {}",
        options.seconds, options.streams
    );
    if let Some(megabits) = options.udp {
        // iperf3's --bitrate is for each stream.
        let bits = u64::from(megabits) * 1_000_000 / u64::from(options.streams);
        line += &format!(" --udp --bitrate {bits}");
    }
    match options.direction {
        Direction::Forward => {}
        Direction::Reverse => line += " --reverse",
        Direction::Both => line += " --bidir",
    }
    line
}

/// CPU times at one moment.
struct Times {
    daemons: Vec<(Option<Duration>, Threads)>,
    machine: Duration,
}

impl Times {
    fn now(star: &Star) -> Result<Times, Failure> {
        let of = |member: &Member| {
            let Some(pid) = member.pid() else { return Ok((None, Threads::default())) };
            let role = member.role();
            let gone = || Failure::step(format!("the daemon of {role} has no CPU time in /proc"));
            Ok((Some(cpu::of_process(pid).ok_or_else(gone)?), Threads::of(pid)))
        };
        let daemons = star.members().map(of).collect::<Result<_, Failure>>()?;
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
            let ((now, threads), (then, threads_then)) = times;
            DaemonTime {
                role: member.role(),
                // The hub comes first.
                is_measured: topology == Topology::Pair || index == 0,
                time: now.zip(*then).map(|(now, then)| now.saturating_sub(then)),
                threads: threads.since(threads_then),
                told: member.told(),
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
            bytes_sent: 2.5e9,
            retransmits: 0.0,
            congestion: String::new(),
            cpu_percent: (0.0, 0.0),
        };
        let daemon = |role, is_measured, seconds: Option<u64>| DaemonTime {
            role,
            is_measured,
            time: seconds.map(Duration::from_secs),
            threads: Vec::new(),
            told: Vec::new(),
        };
        let daemons = vec![daemon("relay", true, Some(3)), daemon("client", false, None)];
        let measurement = Measurement { report, daemons, machine: Duration::from_secs(8) };
        assert_eq!((measurement.gigabits(), measurement.gigabits_sent()), (4.0, 5.0));
        assert!((measurement.lost_percent() - 20.0).abs() < 1e-9);
        assert_eq!(measurement.daemon_seconds_per_gigabyte(), 1.5);
        assert_eq!(measurement.machine_seconds_per_gigabyte(), 4.0);
        assert_eq!(measurement.record()["daemons"][0]["cpu_seconds"], 3.0);
    }
}
