//! The heart: the one real-time thread that receives, decides and sends.
