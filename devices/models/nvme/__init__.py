"""An NVMe controller: queues, commands, namespaces, and virtual functions with controllers."""
