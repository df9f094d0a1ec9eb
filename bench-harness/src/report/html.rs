//! The report as a page of its own, with plots, that needs nothing from elsewhere.

use std::fmt::Write as _;
use std::ops::Range;

use super::plot::{Axis, Curve, PALETTE, Plot};
use super::{Figures, Quantiles, Report, Second, table};

/// A line has hardly more pixels; a longer run is drawn in steps of several seconds.
const STEPS_MAX: usize = 800;

const STYLE: &str = "\
:root { color-scheme: light dark; --page: #fff; --text: #1c1c1c; --quiet: #666; --rule: #ddd; --broken: #b3261e; }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0; } .quiet { color: var(--quiet); overflow-wrap: anywhere; }
.broken { color: var(--page); background: var(--broken); padding: .5rem .75rem; font-weight: 600; }
div.wide { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; } .numbers tr > * { text-align: right; } .numbers tr > :first-child { text-align: left; }
figure { margin: 0; } figcaption { display: flex; flex-wrap: wrap; gap: 0 1.25rem; }
figcaption span::before { content: ''; display: inline-block; width: 1.1em; height: .25em; margin-right: .4em;
  vertical-align: middle; background: var(--key); }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--text); font-family: inherit; }
pre { overflow-x: auto; font-size: 13px; }
";

/// The whole page.
pub(crate) fn html(report: &Report) -> Result<String, String> {
    let heading = escaped(&table::heading(report));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{heading}</title>\n\
         <style>\n{STYLE}{}</style>\n</head>\n<body>\n<h1>{}</h1>\n<p>{}</p>\n<p class=\"quiet\">{heading}</p>\n",
        palette(),
        escaped(&report.scenario_name),
        escaped(&report.scenario.about),
    );
    let class = if report.faults.is_empty() { "held" } else { "broken" };
    for line in table::verdict(&report.faults) {
        let _ = writeln!(page, "<p class=\"{class}\">{}</p>", escaped(&line));
    }
    page += &lines(&table::outcome(report));
    for grid in [table::latencies(&report.total), table::groups(report), table::search(report)] {
        if !grid.is_empty() {
            page += &grid.html();
        }
    }
    page += &lines(&table::resources(report));
    for figure in figures(report)? {
        page += &figure.html()?;
    }
    page += &origin(report)?;
    Ok(page + "</body>\n</html>\n")
}

/// Text as a page shows it, whatever is in it.
pub(crate) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            _ => html.push(character),
        }
    }
    html
}

/// A plot with its title and the names of its curves.
struct Figure {
    title: String,
    plot: Plot,
}

impl Figure {
    fn html(&self) -> Result<String, String> {
        let mut names = String::new();
        for (index, curve) in self.plot.curves.iter().enumerate() {
            let key = index % PALETTE.len();
            let _ =
                write!(names, "<span style=\"--key: var(--curve-{key})\">{}</span>", escaped(&curve.name));
        }
        // One curve alone is what the title says.
        let caption = if self.plot.curves.len() > 1 { names.as_str() } else { "" };
        let (title, svg) = (escaped(&self.title), self.plot.svg()?);
        Ok(format!("<h2>{title}</h2>\n<figure>\n<figcaption>{caption}</figcaption>\n{svg}</figure>\n"))
    }
}

/// Those that have something to show.
fn figures(report: &Report) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    if let Some(course) = Course::of(report) {
        figures.extend(course.figures());
    }
    figures.extend(by_percentile(&report.total)?);
    Ok(figures)
}

/// The time series, in steps of as many seconds as it takes to draw it.
struct Course {
    steps: Vec<Second>,
    /// Seconds of a step.
    step: usize,
    /// From the begin of the first step to the end of the last.
    range: Range<f64>,
    /// The warm-up and the drain.
    greyed: Vec<Range<f64>>,
}

impl Course {
    fn of(report: &Report) -> Option<Self> {
        let (first, last) = (report.series.first()?, report.series.last()?);
        let step = report.series.len().div_ceil(STEPS_MAX);
        let range = first.at as f64..(last.at + 1) as f64;
        let measured = 0.0..report.seconds.clamp(0.0, range.end.max(0.0));
        let greyed = [range.start..measured.start, measured.end..range.end];
        Some(Self {
            steps: report.series.chunks(step).map(condensed).collect(),
            step,
            range,
            greyed: greyed.into_iter().filter(|stretch| stretch.start < stretch.end).collect(),
        })
    }

    fn figures(&self) -> Vec<Figure> {
        let millis = |micros: u64| (micros > 0).then(|| micros as f64 / 1000.0);
        let throughput = vec![
            self.curve("accepted", |second| Some(second.accepted as f64)),
            self.curve("refused", |second| Some(second.refused as f64)),
            self.curve("receipts", |second| Some(second.receipts as f64)),
        ];
        let latency = vec![
            self.curve("p50", |second| millis(second.submit_sm.p50)),
            self.curve("p99", |second| millis(second.submit_sm.p99)),
            self.curve("p99.9", |second| millis(second.submit_sm.p999)),
            self.curve("max", |second| millis(second.submit_sm.max)),
        ];
        let cpu = vec![self.curve("server", |second| second.server_cpu)];
        let memory = vec![
            self.curve("server", |second| second.server_rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0)),
        ];
        let worst =
            if self.step > 1 { format!(", the worst of each {} seconds", self.step) } else { String::new() };
        [
            (String::from("Throughput"), Axis::from_zero("a second", &throughput), throughput),
            (format!("Latency of submit_sm{worst}"), Axis::logarithmic("ms", &latency), latency),
            (String::from("CPU of the server"), Axis::from_zero("cores", &cpu), cpu),
            (String::from("Memory of the server"), Axis::from_zero("MiB resident", &memory), memory),
        ]
        .into_iter()
        .filter(|(_, _, curves)| curves.iter().any(|curve| curve.points.iter().any(|(_, y)| y.is_some())))
        .map(|(title, y, curves)| {
            let x = Axis::linear("seconds since measuring began", self.range.clone());
            Figure { title, plot: Plot { x, y, curves, greyed: self.greyed.clone() } }
        })
        .collect()
    }

    fn curve(&self, name: &str, value: impl Fn(&Second) -> Option<f64>) -> Curve {
        let middle = self.step as f64 / 2.0;
        let points =
            self.steps.iter().map(|second| ((second.at as f64 + middle).min(self.range.end), value(second)));
        Curve { name: name.to_owned(), points: points.collect() }
    }
}

/// What is drawn of several seconds, as of one: counts and CPU on average, latencies and memory at their worst.
fn condensed(seconds: &[Second]) -> Second {
    let average =
        |value: fn(&Second) -> u64| seconds.iter().map(value).sum::<u64>() / seconds.len().max(1) as u64;
    let worst = |value: fn(&Second) -> u64| seconds.iter().map(value).max().unwrap_or(0);
    let cpu: Vec<f64> = seconds.iter().filter_map(|second| second.server_cpu).collect();
    Second {
        at: seconds.first().map_or(0, |second| second.at),
        accepted: average(|second| second.accepted),
        refused: average(|second| second.refused),
        receipts: average(|second| second.receipts),
        submit_sm: Quantiles {
            p50: worst(|second| second.submit_sm.p50),
            p99: worst(|second| second.submit_sm.p99),
            p999: worst(|second| second.submit_sm.p999),
            max: worst(|second| second.submit_sm.max),
        },
        server_cpu: (!cpu.is_empty()).then(|| cpu.iter().sum::<f64>() / cpu.len() as f64),
        server_rss_bytes: seconds.iter().filter_map(|second| second.server_rss_bytes).max(),
        ..Second::default()
    }
}

/// Every latency by its percentiles; `None` when there are none.
fn by_percentile(figures: &Figures) -> Result<Option<Figure>, String> {
    let mut curves = Vec::new();
    let mut count_max = 0;
    for (name, latency) in figures.latencies_in_order() {
        let histogram = latency.histogram()?;
        let count = histogram.len();
        // No axis of nines reaches 100 %: the maximum is drawn where the last of so many samples is.
        let highest = 1.0 - 1.0 / count as f64;
        let points = histogram.iter_quantiles(10).map(|step| {
            let millis = histogram.highest_equivalent(step.value_iterated_to()) as f64 / 1000.0;
            (step.quantile_iterated_to().min(highest), Some(millis))
        });
        curves.push(Curve { name: name.to_owned(), points: points.collect() });
        count_max = count_max.max(count);
    }
    if curves.is_empty() {
        return Ok(None);
    }
    let y = Axis::logarithmic("ms", &curves);
    let x = Axis::nines("percentile", count_max);
    let of = if let [curve] = &curves[..] { format!(" of {}", curve.name) } else { String::new() };
    let title = format!("Latency{of} by percentile");
    Ok(Some(Figure { title, plot: Plot { x, y, curves, greyed: Vec::new() } }))
}

/// How the run can be made again.
fn origin(report: &Report) -> Result<String, String> {
    let scenario =
        toml::to_string(&report.scenario).map_err(|error| format!("a scenario has no TOML: {error}"))?;
    let machine = &report.machine;
    Ok(format!(
        "<h2>Origin</h2>\n<p class=\"quiet\">{}, {} cores, {}; {}</p>\n<p class=\"quiet\">{}</p>\n\
         <details><summary>Scenario as it was played</summary><pre>{}</pre></details>\n",
        escaped(&machine.model),
        machine.cores,
        escaped(&machine.kernel),
        escaped(&report.started_at),
        escaped(&report.command.join(" ")),
        escaped(&scenario),
    ))
}

/// Names with what there is to say about them.
fn lines(lines: &[table::Line]) -> String {
    let rows: String = lines
        .iter()
        .map(|(name, what)| format!("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(what)))
        .collect();
    format!("<div class=\"wide\"><table>\n{rows}</table></div>\n")
}

/// The colours of curves, which depend on whether the page is dark.
fn palette() -> String {
    let (mut light, mut dark, mut curves) = (String::new(), String::new(), String::new());
    for (index, (on_light, on_dark)) in PALETTE.iter().enumerate() {
        let [on_light, on_dark] =
            [on_light, on_dark].map(|colour| format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2));
        let _ = write!(light, " --curve-{index}: {on_light};");
        let _ = write!(dark, " --curve-{index}: {on_dark};");
        // An SVG holds the colours of a light page.
        let _ = writeln!(curves, "svg [stroke='{on_light}'] {{ stroke: var(--curve-{index}); }}");
        let _ = writeln!(curves, "svg [fill='{on_light}'] {{ fill: var(--curve-{index}); }}");
    }
    format!(
        ":root {{{light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ --page: #16181b; --text: #e4e4e4; \
         --quiet: #a0a0a0; --rule: #3a3d42; --broken: #f2877e;{dark} }} }}\n{curves}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Latency, sample};
    use super::*;

    /// Every number of every attribute that places something.
    fn coordinates(page: &str) -> Vec<f64> {
        let mut numbers = Vec::new();
        for attribute in
            [" x", " y", " x1", " y1", " x2", " y2", " cx", " cy", " r", " width", " height", " points"]
        {
            for rest in page.split(&format!("{attribute}=\"")).skip(1) {
                let value = rest.split('"').next().unwrap();
                numbers.extend(
                    value.split([' ', ',']).filter(|number| !number.is_empty()).map(|number| {
                        number.parse::<f64>().unwrap_or_else(|_| panic!("{attribute}={value}"))
                    }),
                );
            }
        }
        numbers
    }

    fn assert_is_drawn_within_bounds(report: &Report) -> String {
        let page = html(report).unwrap();
        let svgs: String =
            page.split("<svg").skip(1).filter_map(|rest| rest.split("</svg>").next()).collect();
        for number in coordinates(&svgs) {
            assert!((-1.0..=2400.0).contains(&number), "{number}");
        }
        assert!(!page.contains("NaN"));
        page
    }

    #[test]
    fn shows_every_figure() {
        let page = assert_is_drawn_within_bounds(&sample::report());
        assert_eq!(page.matches("<svg").count(), 5);
        assert!(page.contains("<p class=\"held\">every promise held</p>"));
        let from_elsewhere = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(
            !["http:", "https:", "src=", "href=", "url("].iter().any(|word| from_elsewhere.contains(word))
        );
    }

    #[test]
    fn puts_faults_at_the_top() {
        let report = Report { faults: sample::faults(), ..sample::report() };
        let page = html(&report).unwrap();
        let fault = page.find("<p class=\"broken\">BROKEN: 3 receipts lost").unwrap();
        assert!(fault < page.find("<table>").unwrap());
    }

    #[test]
    fn escapes_whatever_it_is_given() {
        let evil = "</pre><script>alert('&\"')</script>";
        let mut report = sample::report();
        report.faults = sample::faults();
        let Report { scenario_name, scenario, groups, machine, target, started_at, command, .. } =
            &mut report;
        for text in [
            scenario_name,
            &mut scenario.about,
            &mut scenario.groups[0].name,
            &mut groups[0].name,
            &mut machine.model,
            &mut machine.kernel,
            &mut target.address,
            started_at,
            &mut command[0],
        ] {
            evil.clone_into(text);
        }
        evil.clone_into(&mut report.faults[0].kind);
        evil.clone_into(&mut report.faults[0].examples[0]);
        report.target.tls = Some(evil.to_owned());
        report.total.statuses.insert(evil.to_owned(), 1);
        let latency = report.total.latencies["bind"].clone();
        report.total.latencies.insert(evil.to_owned(), latency);
        let page = html(&report).unwrap();
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert_eq!(page.matches("</pre>").count(), 1);
    }

    #[test]
    fn draws_runs_that_saw_little_or_nothing() {
        let full = sample::report();
        let first: Vec<_> = full.series[..1].to_vec();
        for series in [Vec::new(), vec![Second::default()], first] {
            let page = assert_is_drawn_within_bounds(&Report { series, ..sample::empty() });
            assert!(page.contains("every promise held"));
        }
        // Cut short in the warm-up; longer than its series; no answer ever.
        assert_is_drawn_within_bounds(&Report {
            seconds: 0.0,
            series: full.series[..3].to_vec(),
            ..full.clone()
        });
        assert_is_drawn_within_bounds(&Report { seconds: 1000.0, ..full.clone() });
        let series = (-2..8).map(|at| Second { at, ..Second::default() }).collect();
        assert_is_drawn_within_bounds(&Report { seconds: 5.0, series, ..sample::empty() });
        let one = Latency { count: 0, ..full.total.latencies["bind"].clone() };
        let mut single = full;
        single.total.latencies = [("bind".to_owned(), one)].into();
        assert_is_drawn_within_bounds(&single);
    }

    #[test]
    fn draws_one_latency_alone() {
        let mut histogram = hdrhistogram::Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        histogram.record(1).unwrap();
        let mut report = sample::report();
        report.total.latencies = [("submit_sm".to_owned(), Latency::of(&histogram))].into();
        assert_is_drawn_within_bounds(&report);
    }

    #[test]
    fn draws_a_long_run_in_steps() {
        let full = sample::report();
        let hour = (0..3600).map(|at| Second { at, ..full.series[10].clone() }).collect();
        let report = Report { series: hour, seconds: 3600.0, ..full };
        let page = assert_is_drawn_within_bounds(&report);
        assert!(page.contains("the worst of each 5 seconds") && page.len() < 200_000, "{}", page.len());
    }
}
