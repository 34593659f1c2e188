//! Colours that also who does not see all colours can tell apart (Okabe and Ito's palette), one
//! for each family; the ways to run wg-bounce are shades of blue.

use plotters::style::RGBColor;

/// Text and axes.
pub const INK: RGBColor = RGBColor(0x22, 0x26, 0x2b);
/// What matters less.
pub const FAINT: RGBColor = RGBColor(0x6b, 0x72, 0x80);
/// Lines of a grid.
pub const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xea);

const OURS: [RGBColor; 4] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x0b, 0x3c, 0x5d),
    RGBColor(0x8d, 0xa9, 0xc4),
];

const FAMILIES: [(&str, RGBColor); 4] = [
    ("wireguard-go", RGBColor(0xe6, 0x9f, 0x00)),
    ("boringtun", RGBColor(0x00, 0x9e, 0x73)),
    ("gotatun", RGBColor(0xcc, 0x79, 0xa7)),
    ("kernel", RGBColor(0x55, 0x55, 0x55)),
];

/// The colour of the row with this place among those of its family.
pub fn of(family: &str, place: usize) -> RGBColor {
    let known = FAMILIES.iter().find(|(name, _)| *name == family);
    known.map_or(OURS[place % OURS.len()], |(_, colour)| *colour)
}
