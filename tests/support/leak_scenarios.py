"""What must leave nothing behind, however often it is done: bodies of `async def once()` over `pool`."""

from __future__ import annotations

SCENARIOS = {
    "acquire and release": """
        await pool.release(await pool.acquire(URL, {"authorization": "a" * 2000}))
    """,
    "create and discard": """
        await pool.release(await pool.acquire(URL), discard=True)
    """,
    "session that raises": """
        try:
            async with pool.session(URL):
                raise ConnectionError
        except ConnectionError:
            pass
    """,
    "new keys": """
        pool.number = getattr(pool, "number", 0) + 1
        await pool.release(await pool.acquire(f"{URL}/{pool.number}", user_identity="u"), discard=True)
    """,
    "waiters": """
        async def use():
            async with pool.session(URL):
                await asyncio.sleep(0)
        await asyncio.gather(*(use() for _ in range(8)))
    """,
    "cancelled waiters": """
        held = [await pool.acquire(URL) for _ in range(2)]
        tasks = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(4)]
        await turns(2)
        for task in tasks[:3]:
            task.cancel()
        for pooled in held:
            await pool.release(pooled)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        await pool.release(tasks[3].result())
    """,
    "cancelled creations": """
        task = asyncio.ensure_future(pool.acquire(URL))
        await turns(1)
        task.cancel()
        await asyncio.wait({task})
        await turns(3)
        await pool.release(await pool.acquire(URL), discard=True)
    """,
    "failed creations": """
        pool.create_error = OSError()
        try:
            await pool.acquire(URL, user_identity="ann")
        except OSError:
            pass
        pool.create_error = None
    """,
    "leaked sessions": """
        pooled = await pool.acquire(URL)
        pooled.me = pooled
        del pooled
        gc.collect(0)
        await turns(5)
    """,
    "duck-typed sessions": """
        class Foreign: pass
        pool.make_session = lambda *_: Foreign()
        await pool.release(await pool.acquire(URL), discard=True)
    """,
    "drained": """
        await pool.release(await pool.acquire(URL))
        await pool.drain_all()
    """,
    "pools made and closed": """
        own = FakePool()
        await own.release(await own.acquire(URL))
        held = await own.acquire(URL)
        await own.close_all()
    """,
    "pools made and dropped": """
        own = FakePool()
        await own.release(await own.acquire(URL))
        held = await own.acquire(URL)
    """,
    "overridden hooks": """
        pool._make_pool_key = lambda *args: ("key", "of", "mine")
        await pool.release(await pool.acquire(URL))
        del pool._make_pool_key
        pool._compute_identity_hash = lambda headers: "mine"
        await pool.release(await pool.acquire(URL))
        del pool._compute_identity_hash
    """,
    "refused arguments": """
        for bad in ((b"url",), (URL, {"a": 1}), (URL, None, "sse"), (URL, [])):
            try:
                await pool.acquire(*bad)
            except TypeError:
                pass
    """,
    "views and metrics": """
        held = await pool.acquire(URL, {"authorization": "a"})
        pool.get_metrics(); dict(pool._pools); dict(pool._active); repr(held)
        held.created_at -= 1; held.last_used -= 1
        await pool.release(held)
        pool.get_metrics()
    """,
    "timed-out waiters": """
        from mcpgateway_pool.pool.waiting import time_out
        held = [await pool.acquire(URL) for _ in range(2)]
        caller = asyncio.ensure_future(pool.acquire(URL))
        await turns(2)
        coroutine = caller.get_coro()
        while "pending" not in coroutine.cr_frame.f_locals:
            coroutine = coroutine.cr_await
        frame = coroutine.cr_frame.f_locals
        time_out(pool, frame["pending"], frame["arguments"], 30.0)
        del coroutine, frame
        try:
            await caller
        except TimeoutError:
            pass
        for pooled in held:
            await pool.release(pooled)
    """,
    "hooks that raise": """
        async def refuse(*_): raise ValueError
        for name in ("_create_session", "_validate_session", "_run_health_check_chain"):
            setattr(pool, name, refuse)
            try:
                await pool.release(await pool.acquire(URL), discard=True)
            except ValueError:
                pass
            delattr(pool, name)
        for name in ("_make_pool_key", "_compute_identity_hash"):
            setattr(pool, name, lambda *_: 1 / 0)
            try:
                await pool.acquire(URL)
            except ZeroDivisionError:
                pass
            delattr(pool, name)
        pool.close_error = ValueError()
        await pool.release(await pool.acquire(URL), discard=True)
        pool.close_error = None
    """,
    "circuits that open": """
        own = FakePool(circuit_breaker_threshold=1)
        own.create_error = OSError()
        for _ in range(2):
            try:
                await own.acquire(URL)
            except (OSError, RuntimeError):
                pass
        own.get_metrics()
        await own.close_all()
    """,
    "upkeep": """
        clock = FakeClock()
        own = FakePool(clock=clock)
        await own.release(await own.acquire(URL))
        clock.advance(61.0)
        await own.release(await own.acquire(URL))
        clock.advance(1000.0)
        await upkeep(own)
        await own.close_all()
    """,
    "shared sessions": """
        class Foreign:
            is_closed = False
        own = FakePool(max_sessions_per_key=1)
        own._share(2, True)
        own.make_session = lambda *_: Foreign()
        held = [await own.acquire(URL, user_identity="u", gateway_id="g") for _ in range(2)]
        tickets = [own._lease_ticket(held[0])]
        own._release_lease(tickets[0], 0)
        own._retire(held[0])
        own._evict_group(0, "u")
        del held
        await own.close_all()
    """,
    "the page": """
        import mcpgateway_pool
        mcpgateway_pool.generate_latest()
        app = mcpgateway_pool.metrics_app()
        sent = []
        async def send(message): sent.append(message)
        async def receive(): return {"type": "http.disconnect"}
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        await app(scope, receive, send)
        assert sent[0]["status"] == 200
    """,
    "settings and private calls": """
        from mcpgateway_pool import _core
        changed = pool._settings.for_core()
        changed = {name: changed[name] for name in ("limits", "times", "breaker")}
        pool._configure(**changed, extractor=None)
        _core.snapshot(); _core.buckets(); _core.take_problems(); _core.fold(())
        _core.session_header({"a": "b"})
        pool._identity({"authorization": "\\udc80"}); pool._breakers(); pool._totals(); pool._is_plain
    """,
    "pools dropped with callers under way": """
        own = FakePool(max_sessions_per_key=1)
        pooled = await own.acquire(URL)
        waiting = [own.acquire(URL) for _ in range(2)]
        for caller in waiting:
            caller.send(None)
        await own.release(pooled)
        del own, pooled, waiting, caller
        gc.collect(0)  # they are young; all generations each time would take most of the test's time
    """,
}
