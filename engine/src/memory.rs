//! Memory on its way into images and out of them.
pub(crate) mod areas;
pub(crate) mod capture;
pub(crate) mod collect;
pub(crate) mod fill;
pub(crate) mod flags;
pub(crate) mod foresight;
mod origin;
pub(crate) mod pages;
pub(crate) mod tracker;
