"""Aio-pika at its best: uvloop, two thousand confirms gathered at a time."""

from __future__ import annotations

import asyncio
import time

import aio_pika
import uvloop

from tests.perf.peers.task import LIMIT_S, PREFETCH, WARM_UP, Meter, Task, asked

WINDOW = 2000


def messages(task: Task, count: int) -> list[aio_pika.Message]:
    """As many messages, made beforehand."""
    mode = aio_pika.DeliveryMode.PERSISTENT
    return [aio_pika.Message(task.body, delivery_mode=mode) for _ in range(count)]


async def publish(channel: aio_pika.abc.AbstractChannel, task: Task) -> None:
    """A window is sent, then its confirms are awaited."""
    send = channel.default_exchange.publish
    await asyncio.gather(*[send(message, task.queue) for message in messages(task, WARM_UP)])
    meter = Meter(task.count)
    for start in range(0, task.count, WINDOW):
        window = messages(task, min(WINDOW, task.count - start))
        await asyncio.gather(*[send(message, task.queue, mandatory=True) for message in window])
    meter.tell()


async def latency(channel: aio_pika.abc.AbstractChannel, task: Task) -> None:
    """Each message is a task of its own."""
    send, waits = channel.default_exchange.publish, []

    async def once(due: float) -> None:
        await send(messages(task, 1)[0], task.queue, mandatory=True)
        waits.append(time.perf_counter() - due)

    meter = Meter(task.count)
    began, under_way = time.perf_counter(), set()
    for number in range(task.count):
        due = began + number / task.rate
        # The loop must turn even when it is late, or nothing is ever sent.
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        under_way.add(asyncio.create_task(once(due)))
    await asyncio.gather(*under_way)
    meter.tell(waits)


async def consume(channel: aio_pika.abc.AbstractChannel, task: Task) -> None:
    """Acknowledges each delivery in its callback."""
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(task.queue, ensure=False)
    done, left = asyncio.Event(), task.count

    async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal left
        await message.ack()
        left -= 1
        if left == 0:
            done.set()

    meter = Meter(task.count)
    await queue.consume(handle)
    await asyncio.wait_for(done.wait(), LIMIT_S)
    meter.tell()


async def work(task: Task) -> None:
    """Connects and does what is asked."""
    connection = await aio_pika.connect(f"amqp://guest:guest@{task.host}:{task.port}/")
    channel = await connection.channel(publisher_confirms=task.role != "consume")
    await {"publish": publish, "latency": latency, "consume": consume}[task.role](channel, task)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(work(asked()))
