"""A native agent of LangChain whose code attacks."""

from attacks.batch import attack_all
from langchain_core.runnables import RunnableLambda

agent = RunnableLambda(attack_all)
