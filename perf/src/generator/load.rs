//! `--load`: how much to send.

use std::str::FromStr;

/// What an open loop sends, whatever comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Packets per second.
    Rate(f64),
    /// Percent of what the implementation relayed just before.
    Percent(f64),
}

impl Load {
    /// Packets per second where `capacity` packets per second were relayed.
    pub fn rate(self, capacity: f64) -> f64 {
        match self {
            Load::Rate(rate) => rate,
            Load::Percent(percent) => capacity * percent / 100.0,
        }
    }

    /// As the operator wrote it.
    pub fn label(self) -> String {
        match self {
            Load::Rate(rate) => format!("{rate} packets/s"),
            Load::Percent(percent) => format!("{percent}%"),
        }
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Load, String> {
        let (number, of): (_, fn(f64) -> Load) = match text.strip_suffix('%') {
            Some(number) => (number, Load::Percent),
            None => (text, Load::Rate),
        };
        match number.parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => Ok(of(number)),
            _ => Err("not a number of packets per second, nor a percentage as in 80%".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Load, String> {
        text.parse()
    }

    #[test]
    fn a_load_is_a_rate_or_a_share() {
        let rates = ["10%", "80%", "50000"].map(|text| parse(text).expect("well-formed"));
        assert_eq!(rates.map(|load| load.rate(1000.0)), [100.0, 800.0, 50_000.0]);
        assert_eq!(rates[1].label(), "80%");
        for text in ["0", "x%", "-1", "inf", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
