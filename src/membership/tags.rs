//! `Tags`: what its operator says about a member: a small map of text to text.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The tag that a store reads: copies of a key go to distinct zones.
pub const ZONE: &str = "zone";

/// The most bytes of all names and values of a member.
pub const MAX_TAGS: usize = 4096;

/// The tags of a member: by default none. A process never changes its own. Clones share them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tags(Option<Arc<BTreeMap<String, String>>>);

/// Why texts are no tags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTags(String);

impl Tags {
    /// These tags, each a value by its name.
    ///
    /// # Errors
    /// A name is empty or has a `=`; there are control characters; they have more than [`MAX_TAGS`]
    /// bytes.
    pub fn new(tags: BTreeMap<String, String>) -> Result<Tags, BadTags> {
        for (name, value) in &tags {
            if name.is_empty() || name.contains('=') {
                return Err(BadTags(format!("{name:?} is no name of a tag")));
            }
            if name.chars().chain(value.chars()).any(char::is_control) {
                return Err(BadTags(format!("the tag {name:?} has control characters")));
            }
        }
        let bytes: usize = tags
            .iter()
            .map(|(name, text)| name.len() + text.len())
            .sum();
        if bytes > MAX_TAGS {
            let message = format!("tags of {bytes} bytes: at most {MAX_TAGS} are accepted");
            return Err(BadTags(message));
        }
        Ok(Tags((!tags.is_empty()).then(|| Arc::new(tags))))
    }

    /// Tags written as `NAME=VALUE`.
    ///
    /// # Errors
    /// As for [`new`](Tags::new), or one has no `=`, or there are two of a name.
    pub fn parse(texts: &[String]) -> Result<Tags, BadTags> {
        let mut tags = BTreeMap::new();
        for text in texts {
            let Some((name, value)) = text.split_once('=') else {
                return Err(BadTags(format!("{text:?} is no tag: write NAME=VALUE")));
            };
            if tags.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(BadTags(format!("the tag {name:?} is given twice")));
            }
        }
        Tags::new(tags)
    }

    /// Where the member stands, if it says so: an empty zone is none.
    pub fn zone(&self) -> Option<&str> {
        let zone = self.get(ZONE).map(String::as_str);
        zone.filter(|zone| !zone.is_empty())
    }
}

impl Deref for Tags {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl fmt::Display for Tags {
    /// `NAME=VALUE, NAME=VALUE`. Nothing if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags = self.iter().map(|(name, value)| format!("{name}={value}"));
        f.write_str(&tags.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Tags, String> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        Tags::parse(&texts).map_err(|e| e.to_string())
    }

    #[test]
    fn tags_are_names_and_values_and_a_value_may_have_any_text_but_control_characters() {
        let tags = parse(&["zone=b1", "path=/a=b c", "empty=", "größe=<b>\""]).unwrap();
        assert_eq!(tags.zone(), Some("b1"));
        assert_eq!(
            (tags["path"].as_str(), tags["empty"].as_str()),
            ("/a=b c", "")
        );
        assert_eq!(parse(&["b=2", "a=1"]).unwrap().to_string(), "a=1, b=2");
        assert_eq!(parse(&[]).unwrap(), Tags::default());
        assert_eq!(parse(&["zone="]).unwrap().zone(), None);
    }

    #[test]
    fn bad_tags_are_refused_with_a_sentence() {
        let long = "x".repeat(MAX_TAGS - 1);
        assert!(parse(&[&format!("a={long}")]).is_ok());
        for (tags, part) in [
            (["zone"].as_slice(), "write NAME=VALUE"),
            (&["=b1"], "is no name"),
            (&["a\tb=1"], "control characters"),
            (&["a=\u{1b}[2J"], "control characters"),
            (&["a=1", "a=1"], "given twice"),
            (&[&format!("aa={long}")], "4097 bytes: at most 4096"),
            (&["a=1", &format!("b={long}")], "at most 4096"),
        ] {
            let why = parse(tags).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        assert!(Tags::new(BTreeMap::from([("a=b".into(), "c".into())])).is_err());
    }
}
