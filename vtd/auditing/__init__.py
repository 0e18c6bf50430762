"""Uses of what caches keep after software changed it without the invalidation it owes."""
