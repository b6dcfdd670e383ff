//! Long lists, a page at a time.
//!
//! The problem: pages by number skip and repeat items while the list changes, and get slower the further one reads.
//!
//! The invariant: a page begins right after the last item of the one before, by the list's own order (keyset); the cursor
//! that says so is opaque, and one that wasn't made by this service is 400.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which page. Extract it with [`ApiQuery`](crate::ApiQuery), beside other query types rather than flattened into them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The most items to give, 1 to 200; 50 if not said.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next` of the page before; the first page if not said.
    #[serde(default)]
    cursor: Option<String>,
}

impl PageQuery {
    /// The most items a page can have.
    pub const MAX_LIMIT: u32 = 200;
    /// How many items a page has if the client doesn't say.
    pub const DEFAULT_LIMIT: u32 = 50;

    /// How many items the page may have. Fetch one more, so that [`Page::of`] knows whether there is a next page.
    ///
    /// # Errors
    /// 400 when it is 0 or more than [`PageQuery::MAX_LIMIT`].
    pub fn limit(&self) -> Result<usize, Problem> {
        match self.limit.unwrap_or(Self::DEFAULT_LIMIT) {
            limit @ 1..=Self::MAX_LIMIT => Ok(limit as usize),
            limit => Err(Problem::bad_request(format!("limit is {limit}, it must be 1 to {}", Self::MAX_LIMIT))),
        }
    }

    /// The key of the item the page begins after; none for the first page.
    ///
    /// # Errors
    /// 400 when the cursor isn't one of this list's.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        self.cursor.as_deref().map(decode).transpose()
    }
}

impl<T> Page<T> {
    /// The page made of up to `limit` of `rows`; `key` is what the list is ordered by, and must be unique.
    ///
    /// # Errors
    /// 500 when the key can't be written as JSON.
    pub fn of<K: Serialize>(mut rows: Vec<T>, limit: usize, key: impl FnOnce(&T) -> K) -> Result<Self, Problem> {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = match rows.last() {
            Some(last) if more => Some(encode(&key(last))?),
            _ => None,
        };
        Ok(Self { items: rows, next })
    }

    /// The same page of other items.
    #[must_use]
    pub fn map<U>(self, to: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(to).collect(), next: self.next }
    }
}

fn encode<K: Serialize>(key: &K) -> Result<String, Problem> {
    let json = serde_json::to_vec(key).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn decode<K: DeserializeOwned>(cursor: &str) -> Result<K, Problem> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
        Problem::bad_request("the cursor is not one of this list's").of_kind("/problems/bad-cursor", "bad cursor")
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Page, PageQuery};

    type Key = (i64, Uuid);

    fn query(limit: Option<u32>, cursor: Option<&str>) -> PageQuery {
        PageQuery { limit, cursor: cursor.map(str::to_owned) }
    }

    #[test]
    fn pages_join_without_gap_or_overlap() {
        let all: Vec<Key> = (0..7).map(|number| (number / 2, Uuid::from_u128(number as u128))).collect();
        let mut seen = Vec::new();
        let mut page_query = query(Some(3), None);
        loop {
            let (after, limit) = (page_query.after::<Key>().unwrap(), page_query.limit().unwrap());
            let rows = all.iter().filter(|row| after.is_none_or(|after| **row > after)).take(limit + 1).copied();
            let page = Page::of(rows.collect(), limit, |row| *row).unwrap();
            seen.extend(page.items);
            match page.next {
                Some(next) => page_query = query(Some(3), Some(&next)),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_full_last_page_has_no_next() {
        assert_eq!(Page::of(vec![1, 2], 2, |row| *row).unwrap().next, None);
        assert_eq!(Page::of(Vec::<u8>::new(), 2, |row| *row).unwrap().next, None);
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(query(None, None).limit(), Ok(50));
        assert_eq!(query(Some(200), None).limit(), Ok(200));
        for limit in [0, 201, u32::MAX] {
            assert_eq!(query(Some(limit), None).limit().unwrap_err().status(), 400, "{limit}");
        }
    }

    #[test]
    fn bad_cursors_are_400() {
        let of_another_list = Page::of(vec!["a", "b"], 1, |row| *row).unwrap().next.unwrap();
        for cursor in ["", "!", "bm90IGpzb24", &of_another_list] {
            let problem = query(None, Some(cursor)).after::<Key>().unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.kind()), (400, "/problems/bad-cursor"), "{cursor}");
        }
    }
}
