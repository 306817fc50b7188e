//! Slots by their agents' numbers, in pages that pictures of different moments share: a look-up costs two steps, and a
//! change copies one page and the list of pages.

use std::sync::Arc;

use super::AgentSlot;

/// Slots of a page.
const PAGE: usize = 256;

type Page = [Option<Arc<AgentSlot>>; PAGE];

/// The slots at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pages: Vec<Arc<Page>>,
}

impl Numbers {
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Arc<AgentSlot>> {
        let page = self.pages.get(number as usize / PAGE)?;
        page[number as usize % PAGE].as_ref()
    }

    /// No number is larger or as large.
    pub(super) const fn end(&self) -> u32 {
        // Numbers are `u32`, and the pages are as few as they need.
        (self.pages.len() * PAGE) as u32
    }

    /// The same with another slot at a number.
    pub(super) fn with(&self, number: u32, slot: Option<Arc<AgentSlot>>) -> Self {
        let mut pages = self.pages.clone();
        let at = number as usize / PAGE;
        if at >= pages.len() {
            pages.resize_with(at + 1, || Arc::new([const { None }; PAGE]));
        }
        Arc::make_mut(&mut pages[at])[number as usize % PAGE] = slot;
        Self { pages }
    }
}
