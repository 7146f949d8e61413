"""A topic exchange compares the words of the routing key with patterns: `*` is one word, `#` any number of them."""

from __future__ import annotations

import sys

from dmq_core.cli.play_demo import play
from dmq_core.demo.context import Backdrop
from dmq_core.demo.exchange_context import SortingScene
from dmq_core.demo.model import Demo, Focus, Question, Seen, Step
from dmq_core.messaging import Binding, Exchange, Queue, TopicProducer


class Sensors(SortingScene):
    """Measurements of many places; who reads them says by a pattern which ones."""

    queues = ("europe", "alarms", "everything")

    def __init__(self, backdrop: Backdrop) -> None:
        super().__init__(backdrop)
        self.sensors = self.named("sensors")
        self.europe = self.named("europe")
        self.alarms = self.named("alarms")
        self.everything = self.named("everything")

    def look(self) -> Focus:
        return Focus(exchange=self.sensors, queue=self.everything, tail=self.sensors)

    def bind(self) -> None:
        self.manager.declare(
            Exchange(self.sensors, "topic"),
            Queue(self.europe, "quorum"),
            Queue(self.alarms, "quorum"),
            Queue(self.everything, "quorum"),
            Binding(self.sensors, self.europe, "*.eu.#"),
            Binding(self.sensors, self.alarms, "#.alarm"),
            Binding(self.sensors, self.everything, "#"),
        )

    def publish_in_europe(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish("heat.eu.berlin", "21 degrees")
            self.outcome = handle.wait(10).outcome

    def europe_and_everything_got_it(self) -> Seen:
        return self.got("europe", "everything")

    def publish_alarm(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish("smoke.eu.oslo.alarm", "smoke!")
            self.outcome = handle.wait(10).outcome

    def all_got_it(self) -> Seen:
        return self.got(*self.queues)

    def publish_own(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish(self.answer, "your own message")
            self.outcome = handle.wait(10).outcome

    def went_as_the_words_say(self) -> Seen:
        words = self.answer.split(".")
        named = ["europe"] * (words[1:2] == ["eu"]) + ["alarms"] * (words[-1] == "alarm") + ["everything"]
        seen = self.got(*named)
        return Seen(seen.held, f"key {self.answer!r}: {seen.text}")

    def lose_everything(self) -> None:
        self.delete(self.everything)


DEMO = Demo(
    title="Topic exchange",
    summary="A routing key of several words meets patterns: * stands for one word, # for any number of words.",
    scene=Sensors,
    steps=(
        Step(
            title="Three patterns",
            know="The key of a topic exchange's messages is words with dots between them: what, where, how bad. A "
            "binding is a pattern: * is exactly one word, # is none, one or more.",
            terms=("exchange", "binding", "routing key"),
            play=Sensors.bind,
            command="dmq exchange list\ndmq queue list",
            claim="Three queues are there, bound by *.eu.#, #.alarm and #.",
            check=Sensors.queues_are_there,
            spoil=Sensors.lose_everything,
        ),
        Step(
            title="A measurement in Europe",
            know="*.eu.# wants any first word, then 'eu', then anything. #.alarm wants 'alarm' as the last word.",
            play=Sensors.publish_in_europe,
            command="dmq publish --exchange {sensors} --key heat.eu.berlin '21 degrees'",
            claim="It goes to europe and to everything, and not to alarms.",
            check=Sensors.europe_and_everything_got_it,
            spoil=Sensors.lose_everything,
        ),
        Step(
            title="One message that fits all three",
            know="A queue gets one copy of a message, however many of its bindings fit.",
            play=Sensors.publish_alarm,
            command="dmq publish --exchange {sensors} --key smoke.eu.oslo.alarm 'smoke!'",
            claim="All three queues get one copy.",
            check=Sensors.all_got_it,
            spoil=Sensors.lose_everything,
        ),
        Step(
            title="Your own key",
            know="Words are compared as a whole: 'europe' is not 'eu', and an empty word between two dots is a word.",
            ask=Question("Which routing key, with dots between the words?", usual="heat.us.alarm"),
            play=Sensors.publish_own,
            command="dmq publish --exchange {sensors} --key {answer} 'your own message'",
            claim="It goes to europe if the second word is 'eu', to alarms if the last one is 'alarm', and always to "
            "everything.",
            check=Sensors.went_as_the_words_say,
            spoil=Sensors.lose_everything,
        ),
    ),
    seen="The publisher named what the message is about. Who reads it said by a pattern what to get, and neither "
    "knows the other.",
    when="Events that many read, each from their own point of view: by place, by kind, by urgency. A direct "
    "exchange is a topic exchange without wildcards; a fanout exchange is one where everybody says #.",
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import TopicConsumer, TopicProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = TopicConsumer("sensors", ["*.eu.#", "#.alarm"], "europe-or-alarms", manager)
    consumer.declare_queue()

    def handle(message, headers):
        print(headers.delivery.routing_key, message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with TopicProducer(manager, "sensors") as producer:
        print(producer.publish("heat.eu.berlin", "21 degrees").wait().outcome)
    consumer.wait(10)
""",
    to_try="Which pattern gets alarms of Europe alone? Bind a queue by it and publish both of the keys above.",
    takes_s=2,
    mend=Sensors.bind,
    focus=Sensors.look,
)

if __name__ == "__main__":
    sys.exit(play(__file__))
