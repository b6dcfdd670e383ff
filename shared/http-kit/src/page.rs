//! Keyset pagination.
//!
//! A page starts right after the last item of the previous page, in the order of the list. Unlike numbered pages, it neither
//! skips nor repeats items while the list changes, and late pages are as fast as early ones. Cursors are opaque; a cursor of
//! another list is a 400.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// The `cursor` of the next page. Absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query parameters of a paginated list. Extract it with its own [`ApiQuery`](crate::extract::ApiQuery): flattening it
/// into another query type would parse `limit` as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The maximum number of items on the page, 1 to 200 (default: 50).
    #[serde(default)]
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next` value of the previous page (default: the first page).
    #[serde(default)]
    cursor: Option<String>,
}

impl PageQuery {
    pub const MAX_LIMIT: u32 = 200;
    pub const DEFAULT_LIMIT: u32 = 50;

    /// Returns the maximum number of items on the page.
    ///
    /// # Errors
    /// 400 for 0 and for more than [`PageQuery::MAX_LIMIT`].
    pub fn limit(&self) -> Result<usize, Problem> {
        match self.limit.unwrap_or(Self::DEFAULT_LIMIT) {
            limit @ 1..=Self::MAX_LIMIT => Ok(limit as usize),
            limit => Err(Problem::bad_request(format!("limit is {limit}, it must be from 1 to {}", Self::MAX_LIMIT))),
        }
    }

    /// Returns the key of the last item of the previous page, or `None` for the first page.
    ///
    /// # Errors
    /// 400 for a cursor of another list.
    pub fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        self.cursor.as_deref().map(decode).transpose()
    }
}

impl<T> Page<T> {
    /// Fetches a page. `fetch` gets the key after which the page starts and the number of rows to read, which is one more than
    /// the page has: the additional row shows that there is a next page. `key` returns the value that the list is ordered by,
    /// which must be unique.
    ///
    /// # Errors
    /// 400 for a bad limit or cursor, and the errors of `fetch`.
    pub async fn fetch<K, E, F>(
        query: &PageQuery,
        key: impl FnOnce(&T) -> K,
        fetch: impl FnOnce(Option<K>, i64) -> F,
    ) -> Result<Self, Problem>
    where
        K: Serialize + DeserializeOwned,
        F: Future<Output = Result<Vec<T>, E>>,
        Problem: From<E>,
    {
        let (after, limit) = (query.after()?, query.limit()?);
        Self::of(fetch(after, row_limit(limit)).await?, limit, key)
    }

    /// Makes a page of the first `limit` rows. More than `limit` rows mean that there is a next page. `key` returns the value
    /// that the list is ordered by, which must be unique.
    ///
    /// # Errors
    /// 500 when the key cannot be serialized.
    pub fn of<K: Serialize>(mut rows: Vec<T>, limit: usize, key: impl FnOnce(&T) -> K) -> Result<Self, Problem> {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = match rows.last() {
            Some(last) if more => Some(encode(&key(last))?),
            _ => None,
        };
        Ok(Self { items: rows, next })
    }

    /// Converts the items.
    #[must_use]
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(convert).collect(), next: self.next }
    }
}

/// Returns the number of rows to read for a page of `limit` items: one more, which shows that there is a next page.
#[must_use]
pub fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}

fn encode<K: Serialize>(key: &K) -> Result<String, Problem> {
    let json = serde_json::to_vec(key).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn decode<K: DeserializeOwned>(cursor: &str) -> Result<K, Problem> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(|| {
        Problem::bad_request("the cursor does not belong to this list").of_kind("/problems/bad-cursor", "bad cursor")
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
        let mut items = Vec::new();
        let mut page_query = query(Some(3), None);
        loop {
            let (after, limit) = (page_query.after::<Key>().unwrap(), page_query.limit().unwrap());
            let rows = all.iter().filter(|row| after.is_none_or(|after| **row > after)).take(limit + 1).copied();
            let page = Page::of(rows.collect(), limit, |row| *row).unwrap();
            items.extend(page.items);
            match page.next {
                Some(next) => page_query = query(Some(3), Some(&next)),
                None => break,
            }
        }
        assert_eq!(items, all);
    }

    #[tokio::test]
    async fn fetch_reads_one_row_more_than_the_page_has() {
        let rows = async |after: Option<u32>, limit: i64| {
            let first = after.map_or(0, |after| after + 1);
            Ok::<_, sqlx::Error>((first..5).take(usize::try_from(limit).unwrap()).collect())
        };
        let first = Page::fetch(&query(Some(3), None), |row| *row, rows).await.unwrap();
        assert_eq!(first.items, [0, 1, 2]);
        let last = Page::fetch(&query(Some(3), first.next.as_deref()), |row| *row, rows).await.unwrap();
        assert_eq!((last.items, last.next), (vec![3, 4], None));
    }

    #[test]
    fn full_last_page_has_no_next() {
        assert_eq!(Page::of(vec![1, 2], 2, |row| *row).unwrap().next, None);
        assert_eq!(Page::of(Vec::<u8>::new(), 2, |row| *row).unwrap().next, None);
    }

    #[test]
    fn limit_out_of_range_is_400() {
        assert_eq!(query(None, None).limit(), Ok(50));
        assert_eq!(query(Some(200), None).limit(), Ok(200));
        for limit in [0, 201, u32::MAX] {
            assert_eq!(query(Some(limit), None).limit().unwrap_err().status(), 400, "{limit}");
        }
    }

    #[test]
    fn foreign_cursor_is_400() {
        let of_another_list = Page::of(vec!["a", "b"], 1, |row| *row).unwrap().next.unwrap();
        for cursor in ["", "!", "bm90IGpzb24", &of_another_list] {
            let problem = query(None, Some(cursor)).after::<Key>().unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.kind()), (400, "/problems/bad-cursor"), "{cursor}");
        }
    }
}
