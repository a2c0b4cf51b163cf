//! Colours of frames.

use std::fmt;

use crate::output::tree::Class;

/// A colour that black text can be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    red: u8,
    green: u8,
    blue: u8,
}

impl Fill {
    /// Its class gives the hue, the name the shade.
    pub fn of(class: Class, name: &str) -> Self {
        // FNV-1a: small, and the same everywhere and always.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let shade = (hash >> 32) as u8;
        // Base colour, and how far each part may rise.
        let ([red, green, blue], rise) = match class {
            Class::Root => ([196, 200, 206], [0, 0, 0]),
            Class::Process => ([160, 182, 208], [14, 14, 14]),
            Class::Kernel => ([240, 138, 36], [12, 26, 26]),
            Class::Program => ([232, 98, 84], [16, 36, 36]),
            Class::Library => ([238, 204, 84], [12, 22, 50]),
            Class::Jit => ([96, 188, 96], [40, 30, 40]),
        };
        let raise = |base: u8, rise: u16| base.saturating_add((u16::from(shade) * rise / 255) as u8);
        Self { red: raise(red, rise[0]), green: raise(green, rise[1]), blue: raise(blue, rise[2]) }
    }

    /// Of a share that became larger (above 0, up to 1), or smaller; red and blue, which all people tell apart.
    #[cfg(feature = "compare")]
    pub fn of_change(change: f64) -> Self {
        let (pale, full) =
            if change > 0.0 { ([247, 217, 208], [232, 84, 62]) } else { ([212, 225, 245], [84, 140, 224]) };
        let mix = |pale: u8, full: u8| {
            let (pale, full) = (f64::from(pale), f64::from(full));
            (pale + (full - pale) * change.abs().min(1.0)).round() as u8
        };
        let ([r, g, b], [red, green, blue]) = (pale, full);
        Self { red: mix(r, red), green: mix(g, green), blue: mix(b, blue) }
    }

    /// Of what stayed as it was.
    #[cfg(feature = "compare")]
    pub const UNCHANGED: Self = Self { red: 225, green: 223, blue: 216 };
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_look_the_same() {
        let kernel = Fill::of(Class::Kernel, "schedule");
        assert_eq!(kernel, Fill::of(Class::Kernel, "schedule"));
        assert_ne!(kernel, Fill::of(Class::Jit, "schedule"));
        assert_eq!(kernel.to_string().len(), 7);
    }

    /// Relative luminance, as WCAG 2 has it.
    fn luminance(fill: Fill) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(fill.red) + 0.7152 * linear(fill.green) + 0.0722 * linear(fill.blue)
    }

    #[test]
    fn black_text_is_readable_on_every_colour() {
        use Class::{Jit, Kernel, Library, Process, Program, Root};
        let classes = [Root, Process, Kernel, Program, Library, Jit];
        let classes = classes.into_iter().map(|class| Fill::of(class, ""));
        #[cfg(feature = "compare")]
        let classes = classes
            .chain((-10..=10).map(|tenths| Fill::of_change(f64::from(tenths) / 10.0)))
            .chain([Fill::UNCHANGED]);
        for fill in classes {
            let contrast = (luminance(fill) + 0.05) / 0.05;
            assert!(contrast >= 4.5, "{fill}: {contrast}");
        }
    }
}
