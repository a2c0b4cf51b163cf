//! Numbers that stay whole as long as they can.

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    pub(super) fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_add(b)),
            (a, b) => Self::Double(a.as_f64() + b.as_f64()),
        }
    }

    pub(super) fn negative(self) -> Self {
        match self {
            Self::Int(n) => Self::Int(n.saturating_neg()),
            Self::Double(n) => Self::Double(-n),
        }
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Double(n) => n,
        }
    }
}
