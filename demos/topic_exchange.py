"""A topic exchange compares the words of the routing key with patterns: `*` is one word, `#` any number of them."""

from __future__ import annotations

import sys

from dmq_core.cli.run_demo import run_demo
from dmq_core.demo.context import DemoEnvironment
from dmq_core.demo.exchange_context import ExchangeContext
from dmq_core.demo.model import CheckResult, Demo, DemoQuestion, DemoStep, Focus
from dmq_core.messaging import Binding, Exchange, Queue, TopicProducer


class TopicDemo(ExchangeContext):
    """A topic exchange for measurements of many places, and three queues bound with patterns."""

    queues = ("europe", "alarms", "everything")

    def __init__(self, environment: DemoEnvironment) -> None:
        super().__init__(environment)
        self.sensors = self.unique_name("sensors")
        self.europe = self.unique_name("europe")
        self.alarms = self.unique_name("alarms")
        self.everything = self.unique_name("everything")

    def focus_on(self) -> Focus:
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
            self.outcome = handle.result(10).outcome

    def europe_and_everything_got_one(self) -> CheckResult:
        return self.got("europe", "everything")

    def publish_alarm(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish("smoke.eu.oslo.alarm", "smoke!")
            self.outcome = handle.result(10).outcome

    def all_got_one(self) -> CheckResult:
        return self.got(*self.queues)

    def publish_own(self) -> None:
        with TopicProducer(self.manager, self.sensors) as producer:
            handle = producer.publish(self.answer, "your own message")
            self.outcome = handle.result(10).outcome

    def was_routed_by_its_words(self) -> CheckResult:
        words = self.answer.split(".")
        unique_name = ["europe"] * (words[1:2] == ["eu"]) + ["alarms"] * (words[-1] == "alarm") + ["everything"]
        seen = self.got(*unique_name)
        return CheckResult(seen.passed, f"key {self.answer!r}: {seen.text}")

    def delete_everything(self) -> None:
        self.delete(self.everything)


DEMO = Demo(
    title="Topic exchange",
    summary=(
        "Routing keys of several words are matched with patterns: * stands for one word, # for any number of words."
    ),
    context=TopicDemo,
    steps=(
        DemoStep(
            title="Three patterns",
            explanation=(
                "The routing key of a message to a topic exchange is a list of words separated by dots, such as kind, "
                "place and level. A binding key is a pattern: * matches exactly one word, # matches zero or more."
            ),
            terms=("exchange", "binding", "routing key"),
            run=TopicDemo.bind,
            command="dmq exchange list\ndmq queue list",
            claim="Three queues exist, bound with *.eu.#, #.alarm and #.",
            check=TopicDemo.queues_are_there,
            sabotage=TopicDemo.delete_everything,
        ),
        DemoStep(
            title="A measurement in Europe",
            explanation=(
                "*.eu.# matches any first word, then 'eu', then anything. #.alarm matches 'alarm' as the last word."
            ),
            run=TopicDemo.publish_in_europe,
            command="dmq publish --exchange {sensors} --key heat.eu.berlin '21 degrees'",
            claim="It is routed to europe and everything, and not to alarms.",
            check=TopicDemo.europe_and_everything_got_one,
            sabotage=TopicDemo.delete_everything,
        ),
        DemoStep(
            title="One message that matches all three",
            explanation="A queue gets one copy of a message, however many of its bindings match.",
            run=TopicDemo.publish_alarm,
            command="dmq publish --exchange {sensors} --key smoke.eu.oslo.alarm 'smoke!'",
            claim="All three queues get one copy.",
            check=TopicDemo.all_got_one,
            sabotage=TopicDemo.delete_everything,
        ),
        DemoStep(
            title="Your own key",
            explanation=(
                "Words are compared as a whole: 'europe' is not 'eu', and an empty word between two dots counts as a "
                "word."
            ),
            ask=DemoQuestion("Which routing key, with dots between the words?", usual="heat.us.alarm"),
            run=TopicDemo.publish_own,
            command="dmq publish --exchange {sensors} --key {answer} 'your own message'",
            claim="It is routed to europe if the second word is 'eu', to alarms if the last is 'alarm', and always to "
            "everything.",
            check=TopicDemo.was_routed_by_its_words,
            sabotage=TopicDemo.delete_everything,
        ),
    ),
    seen=(
        "The publisher described each message by its routing key. Each queue was bound with a pattern for what it "
        "wants, and neither side knows the other."
    ),
    when=(
        "Events that many consumers select by different criteria: by place, by kind, by urgency. Without wildcards a "
        "topic exchange works like a direct exchange; with only # it works like a fanout exchange."
    ),
    code="""
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.messaging import TopicConsumer, TopicProducer

with BrokerConnectionManager() as manager:
    manager.register_broker(1, "localhost", 5672)
    consumer = TopicConsumer(manager, "sensors", ["*.eu.#", "#.alarm"], "europe-or-alarms")
    consumer.declare_queue()

    def handle(message, headers):
        print(headers.delivery.routing_key, message)
        consumer.stop_consuming()
        return True

    consumer.start_consuming(handle)
    with TopicProducer(manager, "sensors") as producer:
        print(producer.publish("heat.eu.berlin", "21 degrees").result().outcome)
    consumer.wait(10)
""",
    to_try="Which pattern matches only alarms of Europe? Bind a queue with it and publish both of the keys above.",
    takes_s=2,
    repair=TopicDemo.bind,
    focus=TopicDemo.focus_on,
)

if __name__ == "__main__":
    sys.exit(run_demo(__file__))
