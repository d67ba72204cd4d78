//! Media types as they stand in `Content-Type` headers. RFC 9110 §8.3.

/// Whether a `Content-Type` header says `expected`, in any case and with any parameters, which no message of ours has.
/// Several headers, which HTTP joins with commas, say nothing: whoever sent them may have meant another one.
pub fn is(header: &str, expected: &str) -> bool {
    let (essence, parameters) = header.split_once(';').unwrap_or((header, ""));
    essence.trim_matches(is_blank).eq_ignore_ascii_case(expected) && is_one_value(parameters)
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// Whether no comma outside of quotes begins another value, and every quote ends.
fn is_one_value(parameters: &str) -> bool {
    let mut quoted = false;
    let mut chars = parameters.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => drop(chars.next()),
            ',' if !quoted => return false,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: &str = "application/dap-report";

    #[test]
    fn parameters_case_and_spaces_do_not_matter() {
        for header in [
            "application/dap-report",
            "Application/DAP-Report",
            " application/dap-report\t",
            "application/dap-report;",
            "application/dap-report;version=09",
            "application/dap-report ;  b=2; a=1",
            "application/dap-report; a=\"x; y, z\"",
            "application/dap-report; a=\"quote \\\" and , comma\"; b=c",
            "application/dap-report; a=\"\\\\\"",
        ] {
            assert!(is(header, EXPECTED), "{header}");
        }
    }

    #[test]
    fn another_type_or_several_or_none_are_refused() {
        for header in [
            "",
            ";",
            "application",
            "application/",
            "application/dap-report2",
            "application/dap-repor",
            "application/ dap-report",
            "text/plain; application/dap-report",
            "application/dap-report, application/dap-report",
            "application/dap-report;a=b, application/dap-report",
            "text/plain, application/dap-report",
            "application/dap-report; a=\"b",
            "application/dap-report; a=\"b\\\"",
            "application/dap-report; a=\"b\", c",
            "\u{a0}application/dap-report",
        ] {
            assert!(!is(header, EXPECTED), "{header}");
        }
    }
}
