//! The decision per IP version, and its wording in the log.

use std::fmt;

use wg_bounce_dataplane::snapshot::DirectRelay;
use wg_bounce_sys::{Family, PerFamily};

use super::mode::Mode;
use super::reason::{Finding, Reason};
use crate::limits::RELAY_REASONS_LOGGED_MAX;

/// The decision for both IP versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDecision {
    families: PerFamily<FamilyDecision>,
    mode: Mode,
}

/// The decision for one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FamilyDecision {
    relaying: DirectRelay,
    /// The reasons to leave forwarding to the kernel.
    reasons: Vec<Reason>,
    /// The reasons to leave forwarding between some pairs of addresses to the kernel.
    of_pairs: Vec<Reason>,
    /// Reasons that `--relay direct` bypasses.
    bypassed: Vec<Reason>,
    /// TCP segments with SYN are left to the kernel.
    is_syn_by_kernel: bool,
}

impl PolicyDecision {
    /// Decides on the basis of the findings about all packets, and of those about some pairs of
    /// addresses.
    pub fn new<'a>(
        mode: Mode,
        findings: impl Iterator<Item = &'a Finding> + Clone,
        of_pairs: impl Iterator<Item = &'a Finding> + Clone,
    ) -> PolicyDecision {
        let families = PerFamily::each(|family| {
            let is_of_family = |finding: &&Finding| finding.families.contain(family);
            let reasons = findings.clone().filter(is_of_family);
            let of_pairs = of_pairs.clone().filter(is_of_family);
            let reasons = reasons.map(|finding| finding.reason.clone()).collect();
            let of_pairs = of_pairs.map(|finding| finding.reason.clone()).collect();
            FamilyDecision::new(mode, reasons, of_pairs)
        });
        PolicyDecision { families, mode }
    }

    /// Without an interface, workers relay everything.
    pub fn alone() -> PolicyDecision {
        let alone = || FamilyDecision {
            relaying: DirectRelay::Alone,
            ..FamilyDecision::new(Mode::Direct, Vec::new(), Vec::new())
        };
        PolicyDecision { families: PerFamily { v4: alone(), v6: alone() }, mode: Mode::Direct }
    }

    /// The same decision, but TCP segments with SYN of these IP versions are left to the kernel.
    pub fn with_syn_by_kernel(mut self, families: PerFamily<bool>) -> PolicyDecision {
        for family in Family::BOTH {
            let one = self.families.of_mut(family);
            one.is_syn_by_kernel =
                *families.of(family) && one.relaying == DirectRelay::IfRoutedBack;
        }
        self
    }

    /// The relaying of packets of this IP version.
    pub fn relaying(&self, family: Family) -> DirectRelay {
        self.families.of(family).relaying
    }

    /// The reasons that `--relay direct` bypasses, each once.
    pub fn bypassed(&self) -> Vec<&Reason> {
        let mut bypassed: Vec<&Reason> = Vec::new();
        let PerFamily { v4, v6 } = &self.families;
        for reason in v4.bypassed.iter().chain(&v6.bypassed) {
            if !bypassed.contains(&reason) {
                bypassed.push(reason);
            }
        }
        bypassed
    }

    /// The option that enables direct relay all the same; none if it would make no difference.
    pub fn advice(&self) -> Option<&'static str> {
        let PerFamily { v4, v6 } = &self.families;
        let mut reasons =
            [v4, v6].into_iter().flat_map(|one| one.reasons.iter().chain(&one.of_pairs));
        let may_bypass = |reason: &Reason| {
            !reason.is_of_router() && !matches!(reason, Reason::Settling | Reason::Unread)
        };
        (self.mode == Mode::Auto && reasons.any(may_bypass))
            .then_some("use --relay direct (WG_BOUNCE_RELAY=direct) to bypass it")
    }
}

impl FamilyDecision {
    fn new(mode: Mode, reasons: Vec<Reason>, of_pairs: Vec<Reason>) -> FamilyDecision {
        let (reasons, bypassed) = match mode {
            Mode::Kernel => (Vec::new(), Vec::new()),
            Mode::Auto => (reasons, Vec::new()),
            Mode::Direct => {
                reasons.into_iter().chain(of_pairs.clone()).partition(Reason::is_of_router)
            }
        };
        let relaying = match mode {
            Mode::Auto if reasons.is_empty() => DirectRelay::IfRoutedBack,
            Mode::Direct if reasons.is_empty() => DirectRelay::Always,
            _ => mode.without_forwarding(),
        };
        // What is not relayed bypasses nothing.
        let bypassed = if relaying == DirectRelay::Always { bypassed } else { Vec::new() };
        // Where nothing is relayed, one reason for that is enough.
        let of_pairs = if relaying == DirectRelay::IfRoutedBack { of_pairs } else { Vec::new() };
        FamilyDecision { relaying, reasons, of_pairs, bypassed, is_syn_by_kernel: false }
    }
}

/// For example "IPv4 direct, IPv6 by the kernel (forwarding is off: …)".
impl fmt::Display for PolicyDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PerFamily { v4, v6 } = &self.families;
        if self.mode == Mode::Kernel {
            f.write_str("IPv4 and IPv6 by the kernel (--relay kernel)")
        } else if v4.to_string() == v6.to_string() {
            write!(f, "IPv4 and IPv6 {v4}")
        } else {
            write!(f, "IPv4 {v4}, IPv6 {v6}")
        }
    }
}

impl fmt::Display for FamilyDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |reasons: &[Reason]| listed(&reasons.iter().collect::<Vec<_>>());
        match self.relaying {
            DirectRelay::Never => write!(f, "by the kernel ({})", text(&self.reasons)),
            DirectRelay::LocalOnly => write!(f, "dropped ({})", text(&self.reasons)),
            DirectRelay::Alone => {
                f.write_str("direct (no interface: past the firewall of this host)")
            }
            DirectRelay::IfRoutedBack | DirectRelay::Always => {
                f.write_str("direct")?;
                if self.is_syn_by_kernel {
                    f.write_str(" (TCP SYN by the kernel, which sets the MSS)")?;
                }
                if !self.of_pairs.is_empty() {
                    write!(f, ", but some packets by the kernel ({})", text(&self.of_pairs))?;
                }
                Ok(())
            }
        }
    }
}

/// The first few reasons, and the number of the others.
pub fn listed(reasons: &[&Reason]) -> String {
    let reported: Vec<String> =
        reasons.iter().take(RELAY_REASONS_LOGGED_MAX).map(ToString::to_string).collect();
    match reasons.len().saturating_sub(RELAY_REASONS_LOGGED_MAX) {
        0 => reported.join("; "),
        more => format!("{}; and {more} more", reported.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(family: Family) -> Finding {
        let setting = "net.ipv4.conf.wg0.forwarding".to_owned();
        Finding::of(family, Reason::ForwardingOff { setting })
    }

    fn decision(mode: Mode, findings: &[Finding]) -> PolicyDecision {
        PolicyDecision::new(mode, findings.iter(), [].iter())
    }

    fn relaying(decision: &PolicyDecision) -> [DirectRelay; 2] {
        Family::BOTH.map(|family| decision.relaying(family))
    }

    #[test]
    fn nothing_found_means_direct() {
        let automatic = decision(Mode::Auto, &[]);
        assert_eq!(relaying(&automatic), [DirectRelay::IfRoutedBack; 2]);
        assert_eq!(automatic.to_string(), "IPv4 and IPv6 direct");
        assert_eq!(automatic.advice(), None);
        let direct = decision(Mode::Direct, &[]);
        assert_eq!(relaying(&direct), [DirectRelay::Always; 2]);
        let kernel = decision(Mode::Kernel, &[]);
        assert_eq!(relaying(&kernel), [DirectRelay::Never; 2]);
        assert_eq!(kernel.to_string(), "IPv4 and IPv6 by the kernel (--relay kernel)");
        assert_eq!(kernel.advice(), None);
    }

    #[test]
    fn a_reason_affects_its_family_only() {
        let found = decision(Mode::Auto, &[off(Family::V6)]);
        assert_eq!(relaying(&found), [DirectRelay::IfRoutedBack, DirectRelay::Never]);
        assert_eq!(
            found.to_string(),
            "IPv4 direct, IPv6 by the kernel (forwarding is off: net.ipv4.conf.wg0.forwarding)"
        );
        assert_eq!(found.advice(), None, "direct would not help");
    }

    #[test]
    fn direct_bypasses_everything_but_the_routers_own_settings() {
        let findings = [Finding::of_both(Reason::Xdp), off(Family::V4)];
        let found = decision(Mode::Direct, &findings);
        assert_eq!(relaying(&found), [DirectRelay::LocalOnly, DirectRelay::Always]);
        let text = found.to_string();
        assert!(text.starts_with("IPv4 dropped (forwarding is off"), "{text}");
        assert_eq!(found.bypassed(), [&Reason::Xdp]);
        assert_eq!(found.advice(), None);
        assert_eq!(relaying(&decision(Mode::Auto, &findings)), [DirectRelay::Never; 2]);
        assert!(decision(Mode::Auto, &findings).advice().is_some());
    }

    #[test]
    fn reasons_about_pairs_are_named_where_others_are_relayed() {
        let of_pairs = [Finding::of(Family::V4, Reason::Xdp)];
        let decide = |mode, findings: &[Finding]| {
            PolicyDecision::new(mode, findings.iter(), of_pairs.iter())
        };
        let found = decide(Mode::Auto, &[]);
        assert_eq!(relaying(&found), [DirectRelay::IfRoutedBack; 2]);
        assert_eq!(
            found.to_string(),
            format!("IPv4 direct, but some packets by the kernel ({}), IPv6 direct", Reason::Xdp)
        );
        assert!(found.advice().is_some());
        let found = decide(Mode::Auto, &[Finding::of_both(Reason::IpsecDefault)]);
        assert!(!found.to_string().contains(&Reason::Xdp.to_string()), "{found}");
        let found = decide(Mode::Direct, &[]);
        assert_eq!(found.to_string(), "IPv4 and IPv6 direct");
        assert_eq!(found.bypassed(), [&Reason::Xdp]);
    }

    #[test]
    fn a_long_list_is_cut() {
        let findings: Vec<Finding> =
            (0..5).map(|index| Finding::of_both(Reason::Master { index })).collect();
        let text = decision(Mode::Auto, &findings).to_string();
        assert!(text.contains("interface 2 (") && !text.contains("interface 3 ("), "{text}");
        assert!(text.ends_with("and 2 more)"), "{text}");
    }
}
