"""node.py - a Korean language model as a lifecycle node of ROS 2.

    ros2 run ksllm_ros node --ros-args -p model:=model.gguf

Action ~/generate: a text or a conversation, feedback in whole words, cancel
within milliseconds, one goal at a time (a second one is rejected). Service
~/tokenize. `configure` opens the model, `activate` lets goals in, `deactivate`
ends the one that runs. Parameters: PARAMETERS below; they are read when the
node is configured.

All of the model's work is done by one thread, which has the niceness and the
CPUs of the parameters, and by the workers that inherit them. So the executor's
threads stay as they are, and a control loop in this process is not slowed.
"""
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import rclpy
from ksllm_msgs.action import Generate
from ksllm_msgs.srv import Tokenize
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

try:
    from .ksllm import KsllmError, Model
except ImportError:     # run as a file, with ksllm.py on the path
    from ksllm import KsllmError, Model

PARAMETERS = {
    "model": "",        # a GGUF file
    "n_ctx": 0,         # tokens that a conversation may have; 0: the model's
    "n_threads": 0,     # 0: the fast cores that it may use
    "nice": 10,         # of the model's threads
    "autostart": True,  # configured and activated when the node starts
}


class Words:
    """Hands a text on in whole words: each with the space behind it."""

    def __init__(self, put):
        self.put, self.held = put, ""

    def add(self, text):
        end = 1 + max((i for i, c in enumerate(text) if c.isspace()),
                      default=-1)
        if end:
            self.put(self.held + text[:end])
            self.held = ""
        self.held += text[end:]

    def end(self):
        if self.held:
            self.put(self.held)


class KsllmNode(LifecycleNode):
    def __init__(self):
        super().__init__("ksllm")
        for name, value in PARAMETERS.items():
            self.declare_parameter(name, value)
        self.declare_parameter("cpus", Parameter.Type.INTEGER_ARRAY)
        self.model = self.thread = None
        self.active, self.cancelled = False, False
        self.turn = threading.Lock()    # held from a goal's accept to its end

    # ---- states ----

    def on_configure(self, _state):
        def value(name):
            return self.get_parameter(name).value

        def lower():
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(),
                           value("nice"))
            cpus = self.get_parameter_or("cpus").value
            if cpus:
                os.sched_setaffinity(0, cpus)
            return Model(value("model"), n_ctx=value("n_ctx"),
                         n_threads=value("n_threads"))
        self.thread = ThreadPoolExecutor(1, "ksllm")
        try:
            self.model = self.thread.submit(lower).result()
        except (KsllmError, OSError, ValueError) as error:
            self.get_logger().error(str(error))
            self.close()
            return TransitionCallbackReturn.FAILURE
        group = ReentrantCallbackGroup()
        self.action = ActionServer(
            self, Generate, "~/generate", self.execute, callback_group=group,
            goal_callback=self.on_goal, cancel_callback=self.on_cancel,
            feedback_pub_qos_profile=QoSProfile(depth=100))
        self.service = self.create_service(
            Tokenize, "~/tokenize", self.tokenize, callback_group=group)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state):
        self.active = True
        return super().on_activate(state)

    def on_deactivate(self, state):
        self.rest()
        return super().on_deactivate(state)

    def on_cleanup(self, _state):
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, _state):
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def rest(self):
        """No goal is let in, and the one that runs ends with what it said."""
        self.active = False
        if not self.model:
            return
        for _ in range(250):    # 5 s: its executor may be at an end
            self.model.cancel()
            if self.turn.acquire(timeout=0.02):
                self.turn.release()
                return

    def close(self):
        if self.model:
            self.rest()
            self.destroy_service(self.service)
            self.action.destroy()
            self.model.close()
        if self.thread:
            self.thread.shutdown()
        self.model = self.thread = None

    # ---- goals ----

    def on_goal(self, _goal):
        if self.active and self.turn.acquire(blocking=False):
            self.cancelled = False
            return GoalResponse.ACCEPT
        return GoalResponse.REJECT

    def on_cancel(self, _handle):
        self.cancelled = True
        self.model.cancel()
        return CancelResponse.ACCEPT

    def execute(self, handle):
        result = Generate.Result()
        try:
            self.answer(handle, result)
        except Exception as error:      # a callback that fails ends one goal
            self.get_logger().error(str(error))
            result.error = str(error)
            handle.abort()
        else:
            # The goal is told of a cancel after on_cancel has returned.
            for _ in range(1000):
                if handle.is_cancel_requested or not self.cancelled:
                    break
                time.sleep(0.001)
            if handle.is_cancel_requested:
                handle.canceled()
            elif self.active:
                handle.succeed()
            else:
                handle.abort()
                result.error = "the node was deactivated"
        finally:
            self.turn.release()
        return result

    def answer(self, handle, result):
        goal, pieces, model = handle.request, [], self.model

        def put(piece):
            handle.publish_feedback(
                Generate.Feedback(piece=piece, index=len(pieces)))
            pieces.append(piece)
        words = Words(put)

        def on_text(text):
            words.add(text)
            return self.cancelled or not self.active
        options = {"max_tokens": goal.max_tokens, "budget": goal.budget,
                   "seed": goal.seed, "stop": list(goal.stop)}
        if goal.temperature >= 0:
            options["temperature"] = goal.temperature
        if bool(goal.prompt) == bool(goal.messages_json):
            raise ValueError("a goal has a prompt or messages_json")
        if goal.prompt:
            work = self.thread.submit(model.generate, goal.prompt, on_text,
                                      unit="eojeol", **options)
        else:
            work = self.thread.submit(
                model.chat, json.loads(goal.messages_json),
                json.loads(goal.tools_json) if goal.tools_json else None,
                on_part=lambda kind, text: on_text(
                    text if kind == "text" else ""), **options)
        while not wait([work], 0.01).done:
            if self.cancelled:      # perhaps before the model was at work
                model.cancel()
        message = work.result()
        words.end()
        if message and goal.messages_json:
            result.message_json = json.dumps(message, ensure_ascii=False)
        if not self.cancelled:
            time.sleep(0.02)    # clients drop feedback that comes later
        counts, result.text = model.result, "".join(pieces)
        # on_text may have seen a cancel before the model did.
        result.stop = model.stop if model.stop != "callback" else "cancelled"
        result.prompt_tokens = counts.n_prompt
        result.reused_tokens = counts.n_reused
        result.generated_tokens = counts.n_generated
        result.first_text_seconds = counts.first_ns / 1e9
        result.total_seconds = counts.total_ns / 1e9

    def tokenize(self, request, response):
        response.tokens = self.model.encode(request.text)
        return response


def main():
    # A cancel waits for Python's lock several times while words come fast.
    sys.setswitchinterval(0.0005)
    # rclpy's own handlers would cut the goal off from its client.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    node, executor = KsllmNode(), MultiThreadedExecutor(4)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    done = TransitionCallbackReturn.SUCCESS
    failed = node.get_parameter("autostart").value and (
        node.trigger_configure() != done or node.trigger_activate() != done)
    if not failed:
        end.wait()
    node.rest()
    time.sleep(0.1)     # the goal's result is on its way
    executor.shutdown()
    spinning.join()
    node.close()
    node.destroy_node()
    rclpy.shutdown()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
