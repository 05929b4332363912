"""What a person sees of newshead: the page, read from ClickHouse and nothing else."""
