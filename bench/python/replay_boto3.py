"""Replays a dead-letter queue with boto3 the way such scripts are commonly written: batches of ten, threads.

Prints one line of JSON: messages moved, seconds from the first receive to the last answer, and the
process's own CPU time, start of the interpreter and imports included.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config


def replay(sqs, source, destination):
    """Moves messages until the queue answers empty; returns how many."""
    moved = 0
    while True:
        answer = sqs.receive_message(
            QueueUrl=source,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return moved
        sent = sqs.send_message_batch(
            QueueUrl=destination,
            Entries=[
                {
                    "Id": str(index),
                    "MessageBody": message["Body"],
                    "MessageAttributes": message.get("MessageAttributes", {}),
                }
                for index, message in enumerate(messages)
            ],
        )
        successful = [messages[int(entry["Id"])] for entry in sent.get("Successful", [])]
        if successful:
            sqs.delete_message_batch(
                QueueUrl=source,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                    for index, message in enumerate(successful)
                ],
            )
        moved += len(successful)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="URL of the dead-letter queue")
    parser.add_argument("--destination", required=True, help="URL of the queue to send to")
    parser.add_argument("--threads", type=int, default=16)
    args = parser.parse_args()

    sqs = boto3.client("sqs", config=Config(max_pool_connections=args.threads))
    began = time.perf_counter()
    with ThreadPoolExecutor(args.threads) as pool:
        workers = [
            pool.submit(replay, sqs, args.source, args.destination) for _ in range(args.threads)
        ]
        moved = sum(worker.result() for worker in workers)
    seconds = time.perf_counter() - began
    print(json.dumps({"messages": moved, "seconds": seconds, "cpu_seconds": time.process_time()}))


if __name__ == "__main__":
    main()
