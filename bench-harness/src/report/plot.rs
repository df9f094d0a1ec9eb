//! Curves over two axes, as SVG for a page that lends it font, text colour and palette.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;

use super::units;

/// On the page, in pixels.
const SIZE: (u32, u32) = (800, 270);

/// Of the drawing, for each pixel on the page: coordinates are whole numbers, and curves should be smooth.
const SCALE: u32 = 3;

/// What curves are drawn in, one after the other: on light pages, and on dark ones.
pub(super) const PALETTE: [(RGBColor, RGBColor); 8] = [
    (RGBColor(0x2A, 0x6F, 0xBB), RGBColor(0x6C, 0xA8, 0xF0)),
    (RGBColor(0xC7, 0x6A, 0x00), RGBColor(0xF0, 0xA0, 0x40)),
    (RGBColor(0x1B, 0x8A, 0x5A), RGBColor(0x4C, 0xC3, 0x8A)),
    (RGBColor(0xB8, 0x32, 0x7A), RGBColor(0xEE, 0x7A, 0xB4)),
    (RGBColor(0x6A, 0x51, 0xC7), RGBColor(0xA8, 0x96, 0xF5)),
    (RGBColor(0x8C, 0x5A, 0x2B), RGBColor(0xC7, 0x9A, 0x6B)),
    (RGBColor(0x0E, 0x8A, 0x9E), RGBColor(0x4C, 0xC4, 0xD8)),
    (RGBColor(0xC0, 0x39, 0x2B), RGBColor(0xF0, 0x7A, 0x6E)),
];

/// Seen on light and dark pages alike.
const GREY: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// Curves, and what they are drawn over.
pub(super) struct Plot {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) curves: Vec<Curve>,
    /// Stretches of the x axis that do not count.
    pub(super) greyed: Vec<Range<f64>>,
}

/// A line through points; where there is no y, it is broken.
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// What an axis shows of the numbers there are, and where it names them.
#[derive(Clone)]
pub(super) struct Axis {
    label: &'static str,
    range: Range<f64>,
    ticks: Vec<(f64, String)>,
    /// What is drawn evenly: the number, or its logarithm.
    scale: fn(f64) -> f64,
}

impl Plot {
    /// An `<svg>` element.
    pub(super) fn svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| format!("a plot cannot be drawn: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let page = SVGBackend::with_string(svg, (SIZE.0 * SCALE, SIZE.1 * SCALE)).into_drawing_area();
        let mut chart = ChartBuilder::on(&page)
            .margin(8 * SCALE)
            .margin_right(24 * SCALE)
            .x_label_area_size(36 * SCALE)
            .y_label_area_size(76 * SCALE)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        for stretch in &self.greyed {
            let corners = [(stretch.start, self.y.range.start), (stretch.end, self.y.range.end)];
            chart.draw_series([Rectangle::new(corners, GREY.mix(0.15).filled())])?;
        }
        // The backend makes a font as many times smaller.
        let font = ("sans-serif", f64::from(12 * SCALE) * 1.24);
        chart
            .configure_mesh()
            .axis_style(GREY.stroke_width(SCALE))
            .bold_line_style(GREY.mix(0.3).stroke_width(SCALE))
            .light_line_style(TRANSPARENT)
            .set_all_tick_mark_size(4 * SCALE)
            .label_style(font)
            .axis_desc_style(font)
            .x_label_formatter(&|at| self.x.tick(*at))
            .y_label_formatter(&|at| self.y.tick(*at))
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .draw()?;
        for (curve, (colour, _)) in self.curves.iter().zip(PALETTE.iter().cycle()) {
            for stretch in curve.points.split(|(_, y)| y.is_none()) {
                let stretch: Vec<(f64, f64)> = stretch.iter().filter_map(|&(x, y)| Some((x, y?))).collect();
                if let [point] = stretch[..] {
                    chart.draw_series([Circle::new(point, 2 * SCALE, colour.filled())])?;
                } else {
                    chart.draw_series(LineSeries::new(stretch, colour.stroke_width(SCALE + SCALE / 2)))?;
                }
            }
        }
        page.present()
    }
}

impl Axis {
    /// From one number to another, with ticks at round ones.
    pub(super) fn linear(label: &'static str, range: Range<f64>) -> Self {
        let step = round_step((range.end - range.start) / 6.0);
        let decimals = -step.log10().floor().min(0.0) as usize;
        let first = (range.start / step).ceil() as i64;
        let last = (range.end / step).floor() as i64;
        let ticks = (first..=last)
            .map(|index| index as f64 * step)
            .map(|value| (value, rounded(value, decimals)))
            .collect();
        Self { label, range, ticks, scale: |value| value }
    }

    /// From 0 to a little above the most that is shown.
    pub(super) fn from_zero(label: &'static str, curves: &[Curve]) -> Self {
        let most = values(curves).fold(0.0, f64::max);
        Self::linear(label, 0.0..if most > 0.0 { most * 1.05 } else { 1.0 })
    }

    /// Around all that is shown and above 0, with each power of ten as long as the next.
    pub(super) fn logarithmic(label: &'static str, curves: &[Curve]) -> Self {
        let (least, most) = values(curves)
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0), |(least, most), value| (value.min(least), value.max(most)));
        let range = if most > 0.0 { least * 0.8..most * 1.25 } else { 1.0..10.0 };
        let multiples: &[f64] = if range.end / range.start < 300.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut ticks = Vec::new();
        for exponent in range.start.log10().floor() as i32..=range.end.log10().floor() as i32 {
            let decimals = usize::try_from(-exponent).unwrap_or(0);
            for multiple in multiples {
                let value = multiple * 10_f64.powi(exponent);
                ticks.push((value, rounded(value, decimals)));
            }
        }
        ticks.retain(|(value, _)| range.contains(value));
        Self { label, range, ticks, scale: f64::log10 }
    }

    /// From quantile 0 to the last below 1 that so many samples have, with each further nine as long as the one before.
    pub(super) fn nines(label: &'static str, samples: u64) -> Self {
        let samples = samples.max(10);
        let ticks = (0..=samples.ilog10()).map(|nines| {
            let quantile = 1.0 - 0.1_f64.powi(nines as i32);
            (quantile, format!("{:.*} %", nines.saturating_sub(2) as usize, quantile * 100.0))
        });
        let scale = |quantile: f64| -(1.0 - quantile).log10();
        Self { label, range: 0.0..1.0 - 1.0 / samples as f64, ticks: ticks.collect(), scale }
    }

    fn tick(&self, at: f64) -> String {
        self.ticks.iter().find(|(tick, _)| *tick == at).map(|(_, shown)| shown.clone()).unwrap_or_default()
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let [least, most, value] = [self.range.start, self.range.end, *value].map(self.scale);
        let share = (value - least) / (most - least);
        // What is not on the axis, or not finite, is drawn at one of its ends.
        start + (f64::from(end - start) * share.clamp(0.0, 1.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// The least of 1, 2, 5, 10, 20, … (and tenths of them) that is not below.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|multiple| multiple * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

fn rounded(value: f64, decimals: usize) -> String {
    if decimals == 0 && value >= 0.0 {
        units::count(value.round() as u64)
    } else {
        format!("{value:.decimals$}")
    }
}

fn values(curves: &[Curve]) -> impl Iterator<Item = f64> {
    curves.iter().flat_map(|curve| &curve.points).filter_map(|(_, y)| *y).filter(|y| y.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, shown)| shown.as_str()).collect()
    }

    fn curve(ys: &[Option<f64>]) -> Curve {
        let points = ys.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
        Curve { name: "curve".to_owned(), points }
    }

    #[test]
    fn axes_say_round_numbers() {
        assert_eq!(ticks(&Axis::linear("", -5.0..63.0)), ["0", "20", "40", "60"]);
        assert_eq!(ticks(&Axis::linear("", 0.0..1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(
            ticks(&Axis::from_zero("", &[curve(&[Some(9_000.0)])])),
            ["0", "2,000", "4,000", "6,000", "8,000"]
        );
        assert_eq!(
            ticks(&Axis::logarithmic("", &[curve(&[Some(0.02), Some(3_000.0)])])),
            ["0.1", "1", "10", "100", "1,000"]
        );
        assert_eq!(ticks(&Axis::logarithmic("", &[curve(&[Some(0.3), Some(4.5)])])), ["0.5", "1", "2", "5"]);
        assert_eq!(ticks(&Axis::nines("", 20_000)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn a_curve_is_broken_where_there_is_nothing() {
        let curves = vec![curve(&[Some(1.0), Some(2.0), None, Some(3.0), None, Some(1.0), Some(4.0)])];
        let x = Axis::linear("x", 0.0..8.0);
        let plot = Plot { x, y: Axis::from_zero("y", &curves), curves, greyed: Vec::new() };
        let svg = plot.svg().unwrap();
        assert_eq!(svg.matches("stroke=\"#2A6FBB\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
    }

    #[test]
    fn nothing_at_all_can_be_drawn() {
        for ys in [&[][..], &[None], &[Some(0.0)], &[Some(f64::NAN)], &[Some(f64::INFINITY), Some(1.0)]] {
            for y in [Axis::from_zero("y", &[curve(ys)]), Axis::logarithmic("y", &[curve(ys)])] {
                let plot = Plot {
                    x: Axis::linear("x", 0.0..1.0),
                    y,
                    curves: vec![curve(ys)],
                    greyed: vec![0.0..0.5],
                };
                let svg = plot.svg().unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.ends_with("</svg>\n"), "{svg}");
            }
        }
    }
}
