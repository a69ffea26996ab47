//! What of a status is news, and worth an Event.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;

use super::conditions::EXECUTOR_FAILING;
use super::stored::Refusal;
use super::watches::CANNOT_WATCH;
use crate::crd::status::RaftClusterStatus;

/// Whether it was not refused before, or for another reason.
pub fn is_refused_anew(before: &RaftClusterStatus, refusal: &Refusal) -> bool {
    let mut told = before.conditions.iter();
    !told.any(|condition| {
        condition.type_ == "Degraded"
            && condition.status == "True"
            && condition.reason == refusal.reason
            && condition.message == refusal.why
    })
}

/// A new leader, and conditions that became true or false.
pub fn news(before: &RaftClusterStatus, now: &RaftClusterStatus) -> Vec<(EventType, String, String)> {
    const BAD: [&str; 5] = [
        "Degraded",
        "QuorumAtRisk",
        "ExecutionLagging",
        EXECUTOR_FAILING,
        "StorageResizeUnsupported",
    ];
    const GOOD: [&str; 2] = ["Ready", "Available"];
    /// What is news, whatever was wrong before.
    const ALWAYS_NEWS: [&str; 3] = ["RolloutStopped", CANNOT_WATCH, "Stopped"];
    let mut news = Vec::new();
    if let (Some(leader), true) = (&now.leader, now.leader != before.leader) {
        let term = now.term.unwrap_or_default();
        news.push((
            EventType::Normal,
            "LeaderChanged".into(),
            format!("pod {leader} leads in term {term}"),
        ));
    }
    for condition in &now.conditions {
        let was = before.conditions.iter().find(|was| was.type_ == condition.type_);
        let is = condition.status == "True";
        let same_matter = |was: &&Condition| {
            !ALWAYS_NEWS.contains(&condition.reason.as_str()) || was.reason == condition.reason
        };
        let was = was.filter(same_matter).is_some_and(|was| was.status == "True");
        let kind = match (
            BAD.contains(&condition.type_.as_str()),
            GOOD.contains(&condition.type_.as_str()),
        ) {
            (true, _) if is && !was => EventType::Warning,
            (_, true) if is && !was => EventType::Normal,
            (_, true) if condition.status == "False" && was => EventType::Warning,
            // How long it took to repair is what people look for afterwards.
            (true, _) if condition.type_ == EXECUTOR_FAILING && condition.status == "False" && was => {
                news.push((
                    EventType::Normal,
                    "ExecutorRecovered".into(),
                    condition.message.clone(),
                ));
                continue;
            }
            _ => continue,
        };
        let reason = if is {
            condition.type_.clone()
        } else {
            format!("Not{}", condition.type_)
        };
        news.push((kind, reason, condition.message.clone()));
    }
    news
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn told(kind: &str, status: &str, reason: &str) -> RaftClusterStatus {
        let condition = Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: "why".into(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        RaftClusterStatus {
            conditions: vec![condition],
            ..RaftClusterStatus::default()
        }
    }

    #[test]
    fn what_became_true_or_false_is_news() {
        for (kind, before, now, expected) in [
            ("Ready", ("False", "A"), ("True", "B"), &["Ready"][..]),
            ("Ready", ("True", "A"), ("False", "B"), &["NotReady"]),
            ("Ready", ("True", "A"), ("Unknown", "B"), &[]),
            ("Ready", ("Unknown", "A"), ("False", "B"), &[]),
            ("Degraded", ("False", "A"), ("True", "B"), &["Degraded"]),
            ("Degraded", ("True", "A"), ("True", "B"), &[]),
            ("Degraded", ("True", "A"), ("True", "CannotWatch"), &["Degraded"]),
            ("Degraded", ("True", "CannotWatch"), ("True", "CannotWatch"), &[]),
            (
                "Degraded",
                ("True", "A"),
                ("True", "RolloutStopped"),
                &["Degraded"],
            ),
            ("Degraded", ("True", "A"), ("False", "B"), &[]),
            ("Progressing", ("False", "A"), ("True", "B"), &[]),
            (
                "ExecutorFailing",
                ("False", "A"),
                ("True", "Failing"),
                &["ExecutorFailing"],
            ),
            (
                "ExecutorFailing",
                ("True", "Failing"),
                ("True", "ImagePullBackOff"),
                &[],
            ),
            (
                "ExecutorFailing",
                ("True", "Failing"),
                ("True", "Stopped"),
                &["ExecutorFailing"],
            ),
            (
                "ExecutorFailing",
                ("True", "Stopped"),
                ("False", "A"),
                &["ExecutorRecovered"],
            ),
            ("ExecutorFailing", ("Unknown", "A"), ("False", "B"), &[]),
        ] {
            let (before, now) = (told(kind, before.0, before.1), told(kind, now.0, now.1));
            let reasons: Vec<String> = news(&before, &now)
                .into_iter()
                .map(|(_, reason, _)| reason)
                .collect();
            assert_eq!(reasons, expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_refusal_is_news_once() {
        let refusal = |reason, why: &str| Refusal {
            reason,
            why: why.to_owned(),
        };
        let before = told("Degraded", "True", "InvalidSpec");
        for (refusal, expected) in [
            (refusal("InvalidSpec", "why"), false),
            (refusal("InvalidSpec", "other"), true),
            (refusal("RecordDamaged", "why"), true),
        ] {
            assert_eq!(is_refused_anew(&before, &refusal), expected, "{refusal:?}");
        }
        assert!(is_refused_anew(
            &RaftClusterStatus::default(),
            &refusal("InvalidSpec", "why")
        ));
    }
}
