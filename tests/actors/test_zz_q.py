import asyncio
from tests.support.board import Board, instance
from tests.support.waiting import until
import pytest
import tests.actors.test_drain as t
from callboard.infra.pull import Pull, Delivered
from collections import defaultdict
LOG=defaultdict(list)
orig=Pull._on_message
def om(self,inbox,subject,reply,data,head):
    if reply.startswith(b"$JS.ACK"):
        tok=reply.split(b"."); LOG[int(tok[-4])].append(("got",self.connection.name,int(tok[-5]),bool(self._sid), inbox==self._inbox))
    return orig(self,inbox,subject,reply,data,head)
Pull._on_message=om
oset=Delivered._settle
def st(self,verb):
    LOG[self.sequence].append((verb,self.pull.connection.name, self.sequence in self.pull.held)); return oset(self,verb)
Delivered._settle=st
oack=Delivered.ack
def ak(self):
    LOG[self.sequence].append(("ack",self.pull.connection.name, self.sequence in self.pull.held)); return oack(self)
Delivered.ack=ak
async def test_q(board):
    LOG.clear()
    t.RAN.clear(); t.ENDED.clear()
    await board.host(t.quick_flow)
    host = await board.host(t.quick)
    run = await board.submit(t.quick_flow, count=3000)
    for part in (300, 900, 1500):
        await until(lambda: len(t.ENDED) > part)
        following = await board.host(t.quick)
        await host.stop()
        host = following
    try: await board.done(run, timeout=3)
    except Exception:
        node=await board.node()
        left=await node.reader.read("CALLS", ">")
        print("LEFT", len(left))
        for s in left[:10]: print(s.sequence, s.headers["Cb-Future"][-6:], LOG[s.sequence], t.RAN[int(s.headers["Cb-Future"].split(":")[1])-1])
        i=instance(host,t.quick); print(i.running, len(i.mailbox), i._busy, [(p.asked,list(p.held)) for p in i._pulls])
        raise
