use serde::{Deserialize, Serialize};
use streamjobs::Event;

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", encoding = "fields")]
struct Reserved {
    r#type: String,
    data: String,
    #[serde(rename = "sj-id")]
    id: String,
    #[serde(rename = "kind")]
    fine: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", type = "t", encoding = "fields")]
#[serde(rename_all = "kebab-case")]
struct ByRule {
    sj_key: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(stream = "orders", encoding = "fields")]
#[serde(rename_all_fields = "kebab-case")]
enum Variants {
    #[event(type = "by.enum")]
    ByEnum { sj_ref: String },
    #[event(type = "by.variant")]
    #[serde(rename_all = "kebab-case")]
    ByVariant { sj_key: String },
}

fn main() {}
