"""The query service's settings: each limit with its unit, its default and one sentence."""

from typing import Annotated

import msgspec

from collector.process import setting


class QuerySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answer searches over one cluster's table by HTTP."""

    bucket: Annotated[str, setting("a directory, or s3://BUCKET/PREFIX")] = "everyline/bucket"
    cluster: Annotated[str, setting("name of the cluster whose table is read")] = "local"
    listen: Annotated[
        str, setting("HOST:PORT of the service; loopback only, since it has no authentication")
    ] = "127.0.0.1:8080"
    deletion: Annotated[
        str, setting("on: whoever reaches the service may request deletions; or off")
    ] = "off"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    refresh_ms: Annotated[
        int, setting("age at which the view of the table is refreshed", ge=10)
    ] = 1_000
    refresh_timeout_ms: Annotated[
        int, setting("time after which a request gives up to wait for a refresh", ge=1)
    ] = 30_000
    pinned_versions: Annotated[
        int, setting("versions of the table kept in memory for cursors", ge=1)
    ] = 32
    scan_threads: Annotated[
        int, setting("segments decoded at the same time by all searches; 0: one per core", ge=0)
    ] = 0
    store_reads: Annotated[
        int, setting("segments read from the bucket at the same time by all searches", ge=1)
    ] = 32
    outline_bytes: Annotated[
        int, setting("bytes of segments' footers and token filters kept in memory", ge=0)
    ] = 512 << 20
    requests_max: Annotated[
        int, setting("requests answered at the same time; further ones are refused", ge=1)
    ] = 64
    query_timeout_ms: Annotated[
        int, setting("time after which a search returns what it has found so far", ge=1)
    ] = 30_000
    query_characters: Annotated[int, setting("maximum length of a query", ge=1)] = 4_096
    rows_max: Annotated[int, setting("maximum number of rows in a page", ge=1)] = 10_000
    page_bytes: Annotated[
        int, setting("maximum bytes of the messages in a page; a longer one comes alone", ge=1)
    ] = 16 << 20
    facet_ms: Annotated[
        int, setting("time after which values of fields are told of the rows read so far", ge=1)
    ] = 10_000
    facet_values: Annotated[
        int, setting("different values held while those of fields are counted", ge=1)
    ] = 10_000
    field_rows: Annotated[
        int, setting("newest rows in which names of fields are looked for", ge=1)
    ] = 1_000
    plan_bytes_max: Annotated[
        int,
        setting("bytes of segments that a query may have to read, or it is refused; 0: any", ge=0),
    ] = 0
    # List prices of S3 Standard in us-east-1, https://aws.amazon.com/s3/pricing/ (2026-11): what is
    # read within the region costs nothing by its bytes.
    price_per_1000_gets_usd: Annotated[
        float, setting("price of a thousand requests to the object store", ge=0)
    ] = 0.0004
    price_per_gb_read_usd: Annotated[
        float, setting("price of a billion bytes read from the object store", ge=0)
    ] = 0.0
    context_rows: Annotated[
        int, setting("maximum number of rows before a line, and behind it", ge=1)
    ] = 1_000
    list_max: Annotated[int, setting("maximum number of gaps or streams in a list", ge=1)] = 10_000
