//! Where a helper put what it was asked for.

use url::Url;

/// A resource of the helper: an aggregation job, or an aggregate share. It lies below the helper's URL, whatever a helper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Relative to the helper's URL, without a query.
    pub(super) path: String,
    /// The step that the helper says is to be asked for.
    pub(super) step: Option<u16>,
}

impl Resource {
    /// The last part of its path.
    pub fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// The resource that a `Location` header names in an answer to what was sent to `collection`, a path below `base`. `None` if
/// it names none.
///
/// By RFC 9110 §10.2.2 it may be absolute, or relative to the URL of the request, and helpers leave out the path of their
/// base. Whatever it says, requests with the leader's token go to `base` only: of a `Location` that leads elsewhere, no more is
/// believed than the id, its last part.
pub(super) fn located(base: &Url, collection: &str, location: &str) -> Option<Resource> {
    if location.is_empty() {
        return None;
    }
    let asked = base.join(collection).ok()?;
    let url = asked.join(location).ok()?;
    let below = url.path().strip_prefix(asked.path()).and_then(|rest| rest.strip_prefix('/'));
    let id = match below {
        Some(id) if url.origin() == base.origin() => id,
        _ => url.path_segments()?.next_back()?,
    };
    if id.is_empty() {
        return None;
    }
    let step = url.query_pairs().find(|(name, _)| name == "step");
    Some(Resource {
        path: format!("{collection}/{id}"),
        step: step.and_then(|(_, step)| step.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLLECTION: &str = "tasks/T/aggregation_jobs";

    fn at(location: &str) -> Option<(String, Option<u16>)> {
        let base = Url::parse("https://helper.example/base/v18/").unwrap();
        let resource = located(&base, COLLECTION, location)?;
        let url = base.join(&resource.path).unwrap();
        assert!(url.as_str().starts_with("https://helper.example/base/v18/tasks/T/"), "{url}");
        Some((resource.path.strip_prefix("tasks/T/aggregation_jobs/")?.to_owned(), resource.step))
    }

    #[test]
    fn a_location_may_be_written_in_many_ways() {
        for (location, step) in [
            ("https://helper.example/base/v18/tasks/T/aggregation_jobs/J", None),
            ("https://helper.example:443/base/v18/tasks/T/aggregation_jobs/J?step=0", Some(0)),
            ("//helper.example/base/v18/tasks/T/aggregation_jobs/J?step=1", Some(1)),
            ("/base/v18/tasks/T/aggregation_jobs/J?a=b&step=2", Some(2)),
            ("aggregation_jobs/J", None),
            ("./aggregation_jobs/J?step=x", None),
            ("../T/aggregation_jobs/J?step=65536", None),
            // Without the path of the base.
            ("/tasks/T/aggregation_jobs/J?step=0", Some(0)),
            ("/J", None),
        ] {
            assert_eq!(at(location), Some(("J".into(), step)), "{location}");
        }
    }

    #[test]
    fn ids_are_whatever_the_helper_likes() {
        let of = |id: &str| at(&format!("/base/v18/tasks/T/aggregation_jobs/{id}")).unwrap().0;
        for id in ["1", "a/b", "a%2Fb", "%20", "-._~", "x:y@z"] {
            assert_eq!(of(id), id);
        }
    }

    #[test]
    fn a_location_elsewhere_is_believed_for_its_id_only() {
        for location in [
            "https://evil.example/base/v18/tasks/T/aggregation_jobs/J",
            "//evil.example/tasks/T/aggregation_jobs/J",
            "https://helper.example@evil.example/J",
            "http://helper.example/base/v18/tasks/T/aggregation_jobs/J",
            "https://helper.example:444/base/v18/tasks/T/aggregation_jobs/J",
            "/admin/J",
            "/base/v18/tasks/T/aggregation_jobs/../../../../../../J",
            "/base/v18/tasks/T/aggregation_jobs/%2e%2e/%2E./J",
            "/base/v18/tasks/other/aggregation_jobs/J",
            "\\\\evil.example\\J",
        ] {
            assert_eq!(at(location), Some(("J".into(), None)), "{location}");
        }
    }

    #[test]
    fn what_names_no_resource_is_none() {
        for location in ["", "/", "https://evil.example", "mailto:x", "data:,x", "J/", "http://["] {
            assert_eq!(at(location), None, "{location}");
        }
    }
}
