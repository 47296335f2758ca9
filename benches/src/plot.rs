//! Pictures of figures: bars beside each other and lines over a count, as SVG.
//!
//! Before: names and numbers. After: a file that every browser shows, with the viewer's fonts.
//! Never: needs a font of this machine: text stays text.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

const PANEL_WIDTH: u32 = 420;
const ROW_HEIGHT: u32 = 18;
const LINES_SIZE: (u32, u32) = (760, 420);
const LABEL_WIDTH: i32 = 120;
/// Room for a number after the longest bar.
const NUMBER_WIDTH: i32 = 60;
const HEAD_HEIGHT: i32 = 30;
const TEXT_SIZE: u32 = 12;
const INK: RGBColor = RGBColor(40, 40, 40);

/// The owner of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// dotd.
    Ours,
    /// Another program.
    Theirs,
    /// A reference.
    Floor,
}

impl Side {
    fn color(self) -> RGBColor {
        match self {
            Self::Ours => RGBColor(27, 120, 55),
            Self::Theirs => RGBColor(90, 120, 170),
            Self::Floor => RGBColor(150, 150, 150),
        }
    }
}

/// One bar: a part that is drawn dark and one that is drawn light after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// In front of it.
    pub label: String,
    /// Its colour.
    pub side: Side,
    /// The two parts; the number behind the bar is their sum.
    pub parts: [f64; 2],
}

/// Bars with the same scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Above them, with the unit.
    pub title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One line over a count.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the legend.
    pub label: String,
    /// Counts and figures, in the order of counts.
    pub points: Vec<(f64, f64)>,
}

/// Draws panels in columns of `columns`, with a heading.
///
/// # Errors
/// The file cannot be written.
pub fn bars(path: &Path, heading: &str, columns: usize, panels: &[Panel]) -> Result<()> {
    let rows = panels.len().div_ceil(columns.max(1)).max(1);
    let tallest = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or_default();
    let tallest = u32::try_from(tallest)? * ROW_HEIGHT + HEAD_HEIGHT.unsigned_abs() + ROW_HEIGHT;
    let width = PANEL_WIDTH * u32::try_from(columns)?;
    let height = tallest * u32::try_from(rows)? + HEAD_HEIGHT.unsigned_abs();
    let root = SVGBackend::new(path, (width, height)).into_drawing_area();
    root.fill(&WHITE).map_err(told)?;
    root.draw(&Text::new(heading.to_owned(), (10, 8), text(TEXT_SIZE + 4, HPos::Left, VPos::Top)))
        .map_err(told)?;
    let (_, below) = root.split_vertically(HEAD_HEIGHT);
    for (area, panel) in below.split_evenly((rows, columns)).iter().zip(panels) {
        draw_panel(area, panel)?;
    }
    root.present().map_err(told)
}

fn draw_panel(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel) -> Result<()> {
    let title = Text::new(panel.title.clone(), (10, 6), text(TEXT_SIZE + 1, HPos::Left, VPos::Top));
    area.draw(&title).map_err(told)?;
    let width = i32::try_from(area.dim_in_pixel().0)? - LABEL_WIDTH - NUMBER_WIDTH;
    let longest = panel.bars.iter().map(|bar| bar.parts[0] + bar.parts[1]).fold(f64::MIN_POSITIVE, f64::max);
    // Pixels of a figure: at most `width`, because it is at most the longest.
    let pixels = |figure: f64| (figure / longest * f64::from(width)) as i32;
    let step = i32::try_from(ROW_HEIGHT)?;
    for (number, bar) in panel.bars.iter().enumerate() {
        let top = HEAD_HEIGHT + step * i32::try_from(number)?;
        let middle = top + step / 2;
        let label = text(TEXT_SIZE, HPos::Right, VPos::Center);
        area.draw(&Text::new(bar.label.clone(), (LABEL_WIDTH - 6, middle), label)).map_err(told)?;
        let (first, both) =
            (LABEL_WIDTH + pixels(bar.parts[0]), LABEL_WIDTH + pixels(bar.parts[0] + bar.parts[1]));
        let color = bar.side.color();
        area.draw(&Rectangle::new([(LABEL_WIDTH, top + 2), (first, top + step - 2)], color.filled()))
            .map_err(told)?;
        area.draw(&Rectangle::new([(first, top + 2), (both, top + step - 2)], color.mix(0.5).filled()))
            .map_err(told)?;
        let number = text(TEXT_SIZE, HPos::Left, VPos::Center);
        area.draw(&Text::new(short(bar.parts[0] + bar.parts[1]), (both + 4, middle), number))
            .map_err(told)?;
    }
    Ok(())
}

/// Draws lines over a logarithmic axis of counts, from zero up.
///
/// # Errors
/// The file cannot be written, or there is nothing to draw.
pub fn lines(path: &Path, heading: &str, counts: &str, figures: &str, series: &[Series]) -> Result<()> {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.0).fold(0.0, f64::max);
    let highest = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
    if !(least > 0.0 && least < most) {
        return Err(anyhow!("{}: a line needs two counts above zero", path.display()));
    }
    let root = SVGBackend::new(path, LINES_SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(told)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption(heading, ("sans-serif", TEXT_SIZE + 4))
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((least..most).log_scale(), 0.0..highest * 1.1)
        .map_err(told)?;
    chart
        .configure_mesh()
        .x_desc(counts)
        .y_desc(figures)
        .x_label_formatter(&|count| format!("{count:.0}"))
        .draw()
        .map_err(told)?;
    for (number, series) in series.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let line = LineSeries::new(series.points.iter().copied(), color.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(told)?
            .label(series.label.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        let dots = series.points.iter().map(|point| Circle::new(*point, 3, color.filled()));
        chart.draw_series(dots).map_err(told)?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .position(SeriesLabelPosition::LowerRight)
        .draw()
        .map_err(told)?;
    root.present().map_err(told)
}

fn text(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&INK).pos(Pos::new(horizontal, vertical))
}

fn short(figure: f64) -> String {
    if figure < 10.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}

/// plotters' errors borrow the backend.
fn told(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(draw: impl FnOnce(&Path) -> Result<()>) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plot.svg");
        draw(&path).expect("drawn");
        std::fs::read_to_string(path).expect("written")
    }

    /// Goal: every label and every sum can be read in the picture, in as many bars as there are parts. Method: two
    /// panels of known figures.
    #[test]
    fn bars_are_labelled() {
        let bar = |label: &str, parts| Bar { label: label.to_owned(), side: Side::Ours, parts };
        let panel =
            Panel { title: "w1 µs".into(), bars: vec![bar("one", [1.0, 2.5]), bar("two", [12.0, 0.0])] };
        let svg = drawn(|path| bars(path, "heading", 2, &[panel.clone(), panel.clone()]));
        for word in ["heading", "w1 µs", "one", "two", "3.50", "12"] {
            assert!(svg.lines().any(|line| line.trim() == word), "{word} in {svg}");
        }
        // The background, and two parts of two bars of two panels.
        assert_eq!(svg.matches("<rect").count(), 1 + 8, "{svg}");
    }

    /// Goal: a line has a dot for each figure and a name. Method: three powers of ten; then one count alone.
    #[test]
    fn lines_are_drawn() {
        let series = |counts: &[f64]| Series {
            label: "dotd".to_owned(),
            points: counts.iter().map(|count| (*count, 7.0)).collect(),
        };
        let svg = drawn(|path| lines(path, "heading", "connections", "µs", &[series(&[10.0, 100.0, 1e3])]));
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        for word in ["heading", "dotd", "connections", "1000"] {
            assert!(svg.lines().any(|line| line.trim() == word), "{word} in {svg}");
        }
        let error = lines(Path::new("/nonexistent"), "", "", "", &[series(&[10.0])]).expect_err("one count");
        assert!(error.to_string().contains("two counts"), "{error}");
    }
}
