"""A topic exchange compares the words of the routing key with patterns: `*` is one word, `#` any number of them."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.exchange_context import ExchangeContext
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, Exchange, Queue, TopicProducer


class Sensors(ExchangeContext):
    """Measurements of many places; who reads them says by a pattern which ones."""

    queues = ("europe", "alarms", "everything")

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
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

    def europe_and_everything_got_it(self) -> CheckResult:
        return self.got("europe", "everything")

    def publish_alarm(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish("smoke.eu.oslo.alarm", "smoke!")
            self.outcome = handle.wait(10).outcome

    def all_got_it(self) -> CheckResult:
        return self.got(*self.queues)

    def publish_own(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish(self.answer, "your own message")
            self.outcome = handle.wait(10).outcome

    def went_as_the_words_say(self) -> CheckResult:
        words = self.answer.split(".")
        named = ["europe"] * (words[1:2] == ["eu"]) + ["alarms"] * (words[-1] == "alarm") + ["everything"]
        seen = self.got(*named)
        return CheckResult(seen.passed, f"key {self.answer!r}: {seen.text}")

    def lose_everything(self) -> None:
        self.delete(self.everything)


DEMO = Demo(
    title="Topic exchange",
    summary="A routing key of several words meets patterns: * stands for one word, # for any number of words.",
    context=Sensors,
    steps=(
        DemoStep(
            title="Three patterns",
            explanation=(
                "The key of a topic exchange's messages is words with dots between them: what, where, how bad. A "
                "binding is a pattern: * is exactly one word, # is none, one or more."
            ),
            terms=("exchange", "binding", "routing key"),
            run=Sensors.bind,
            command="dmq exchange list\ndmq queue list",
            claim="Three queues are there, bound by *.eu.#, #.alarm and #.",
            check=Sensors.queues_are_there,
            sabotage=Sensors.lose_everything,
        ),
        DemoStep(
            title="A measurement in Europe",
            explanation=(
                "*.eu.# wants any first word, then 'eu', then anything. #.alarm wants 'alarm' as the last word."
            ),
            run=Sensors.publish_in_europe,
            command="dmq publish --exchange {sensors} --key heat.eu.berlin '21 degrees'",
            claim="It goes to europe and to everything, and not to alarms.",
            check=Sensors.europe_and_everything_got_it,
            sabotage=Sensors.lose_everything,
        ),
        DemoStep(
            title="One message that fits all three",
            explanation="A queue gets one copy of a message, however many of its bindings fit.",
            run=Sensors.publish_alarm,
            command="dmq publish --exchange {sensors} --key smoke.eu.oslo.alarm 'smoke!'",
            claim="All three queues get one copy.",
            check=Sensors.all_got_it,
            sabotage=Sensors.lose_everything,
        ),
        DemoStep(
            title="Your own key",
            explanation=(
                "Words are compared as a whole: 'europe' is not 'eu', and an empty word between two dots is a word."
            ),
            ask=DemoQuestion("Which routing key, with dots between the words?", usual="heat.us.alarm"),
            run=Sensors.publish_own,
            command="dmq publish --exchange {sensors} --key {answer} 'your own message'",
            claim="It goes to europe if the second word is 'eu', to alarms if the last one is 'alarm', and always to "
            "everything.",
            check=Sensors.went_as_the_words_say,
            sabotage=Sensors.lose_everything,
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
    repair=Sensors.bind,
    focus=Sensors.look,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
