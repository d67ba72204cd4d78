//! Media types as they stand in `Content-Type` headers. RFC 9110 §8.3.

/// Whether a `Content-Type` header says `expected`, with its parameters if it has some, in any order and with any others. Case
/// does not matter. Several headers, which HTTP joins with commas, say nothing: whoever sent them may have meant another one.
pub fn is(header: &str, expected: &str) -> bool {
    let (Some(said), Some(wanted)) = (parts(header), parts(expected)) else { return false };
    let (Some((essence, said)), Some((wanted_essence, wanted))) =
        (said.split_first(), wanted.split_first())
    else {
        return false;
    };
    let has = |parameter: &&str| {
        let Some((name, value)) = parameter.split_once('=') else { return false };
        let named =
            |p: &&&str| p.split_once('=').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut values = said.iter().filter(named).filter_map(|p| p.split_once('='));
        // One that comes twice must not say two things.
        let says = |v: &str| unquoted(v).eq_ignore_ascii_case(value);
        values.next().is_some_and(|(_, v)| says(v)) && values.all(|(_, v)| says(v))
    };
    essence.eq_ignore_ascii_case(wanted_essence) && wanted.iter().all(has)
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value)
}

/// The type and its parameters, without blanks around them; `None` if a comma outside of quotes begins another value, or a
/// quote does not end.
fn parts(header: &str) -> Option<Vec<&str>> {
    let (mut quoted, mut escaped, mut begin, mut parts) = (false, false, 0, Vec::new());
    for (at, c) in header.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '"' => quoted = !quoted,
            '\\' if quoted => escaped = true,
            ',' if !quoted => return None,
            ';' if !quoted => {
                parts.push(header.get(begin..at)?);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return None;
    }
    parts.push(header.get(begin..)?);
    Some(parts.into_iter().map(|part| part.trim_matches(is_blank)).collect())
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
    fn the_parameters_that_are_expected_must_be_there() {
        const EXPECTED: &str = "application/ppm-dap;message=upload-req";
        for header in [
            "application/ppm-dap;message=upload-req",
            "application/PPM-DAP; Message=Upload-Req",
            "application/ppm-dap; version=18 ;\tmessage=upload-req;",
            "application/ppm-dap;message=\"upload-req\"",
            "application/ppm-dap;message=upload-req;message=upload-req",
        ] {
            assert!(is(header, EXPECTED), "{header}");
        }
        for header in [
            "application/ppm-dap",
            "application/ppm-dap;message=",
            "application/ppm-dap;message=upload-errors",
            "application/ppm-dap;message = upload-req",
            "application/ppm-dap;a=\"message=upload-req\"",
            "application/ppm-dap;a=\";message=upload-req\"",
            "application/ppm-dap;message=upload-req;message=upload-errors",
            "application/ppm-dap;messages=upload-req",
            "application/dap-report;message=upload-req",
        ] {
            assert!(!is(header, EXPECTED), "{header}");
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
