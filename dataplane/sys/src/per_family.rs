//! One value for each address family.

use std::net::IpAddr;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// One value for IPv4 and one for IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub v4: T,
    /// The value for IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// The values of a function.
    #[must_use]
    pub fn each(mut function: impl FnMut(Family) -> T) -> PerFamily<T> {
        PerFamily { v4: function(Family::V4), v6: function(Family::V6) }
    }

    /// The value for `family`.
    #[must_use]
    pub fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The value for `family`, to be changed.
    #[must_use]
    pub fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Applies a function to both values.
    #[must_use]
    pub fn map<U>(self, mut function: impl FnMut(T) -> U) -> PerFamily<U> {
        PerFamily { v4: function(self.v4), v6: function(self.v6) }
    }
}
