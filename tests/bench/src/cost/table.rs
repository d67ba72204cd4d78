//! The bill for people.

use std::fmt;

use super::{
    Cost, Variant,
    model::{Role, short},
};

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = &self.workload;
        let who = match w.role {
            Role::Helper => "helper",
            Role::Leader => "leader (an estimate: the Worker has none)",
        };
        writeln!(
            f,
            "A month of a {who}: {} million reports a week, {} {}, jobs of {}, {} batch buckets a day,",
            short(w.reports_per_week / 1e6),
            self.version.tag(),
            self.vdaf.name(),
            w.job_size,
            short(w.buckets_per_day),
        )?;
        let shards =
            if w.shards == 1.0 { "1 shard".to_owned() } else { format!("{} shards", w.shards) };
        writeln!(f, "{shards}. List prices of {}, in US$.", self.prices_as_of)?;
        match &self.measured_on {
            Some(when) => writeln!(f, "Measured on {when}.\n")?,
            None => writeln!(f, "CPU as it was said, not measured.\n")?,
        }
        writeln!(
            f,
            "{:<22}{:>18}{:>18}{:>10}  where it comes from",
            "", "a month", "included", "US$"
        )?;
        for item in &self.bill.items {
            writeln!(
                f,
                "{:<22}{:>18}{:>18}{:>10.2}  {}",
                item.item,
                grouped(item.quantity),
                grouped(item.included),
                item.usd,
                item.why
            )?;
        }
        write!(f, "{:<22}{:>46.2}", "together", self.bill.total_usd)?;
        match self.target_usd {
            Some(target) if self.bill.total_usd <= target => {
                writeln!(f, "  within the {target:.0} aimed at\n")?
            }
            Some(target) => writeln!(f, "  MORE than the {target:.0} aimed at\n")?,
            None => writeln!(f, "\n")?,
        }
        let list = |f: &mut fmt::Formatter<'_>, variants: &[Variant]| {
            variants.iter().try_for_each(|v| {
                writeln!(
                    f,
                    "  {:<52}{:>8.0} µs a report{:>10.2} US$, most for {}",
                    v.case, v.cpu_us_per_report, v.usd, v.largest
                )
            })
        };
        writeln!(f, "By job size, which the leader chooses:")?;
        list(f, &self.by_job_size)?;
        writeln!(f, "\nWhat if:")?;
        list(f, &self.what_if)
    }
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    if number < 100.0 {
        return short(number);
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.6), "1,000");
        assert_eq!(grouped(0.41), "0.41");
    }
}
